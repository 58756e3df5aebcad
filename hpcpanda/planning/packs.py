"""Packs and nodes as a planning round sees them: what they have, what they can take, and what they are to get."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from hpcpanda.domain.site import Site
from hpcpanda.domain.task import JobRequest
from hpcpanda.planning.actions import PackPlan, Share
from hpcpanda.planning.requests import Shape
from hpcpanda.planning.situation import PackView, PartView, TaskView

_SLACK: Final = 1e-9


@dataclass(slots=True)
class Pool:
    """What is ready of a task, as far as it is not placed."""

    task: TaskView
    left: int
    placed: bool = False

    @property
    def job(self) -> JobRequest:
        """What each job asks for; only of a pool of jobs."""
        assert self.task.job is not None
        return self.task.job


class Load:
    """Cores, memory and GPUs that jobs have of a pack, now and for how long."""

    def __init__(self, site: Site, nodes: int) -> None:
        node = site.nodes
        self._node = (node.cores, node.memory_mb, node.gpus)
        self._nodes = nodes
        self._used = [0.0, 0.0, 0.0]
        self._work = [0.0, 0.0, 0.0]

    @property
    def cores(self) -> float:
        """Cores that jobs hold or wait for."""
        return self._used[0]

    @property
    def seconds(self) -> float:
        """How long the jobs keep all cores busy."""
        return self._work[0] / (self._nodes * self._node[0])

    def add(self, job: JobRequest, count: int, seconds: float) -> None:
        """Count jobs that the pack has, each expected to run for so long."""
        for i, need in enumerate(self._needs(job)):
            self._used[i] += count * need
            self._work[i] += count * need * seconds

    def at_least(self, cores: float) -> None:
        """The pack says that jobs have so many cores."""
        self._used[0] = max(self._used[0], cores)

    def slots(self, job: JobRequest) -> int:
        """Jobs that run at the same time in the empty pack; at least one, since clones may follow each other."""
        return max(1, self._on_node(job) * self._nodes // job.clones)

    def room_for(self, job: JobRequest, seconds: float, within: float) -> int:
        """Jobs that can be started within so many seconds besides those that the pack has."""
        if within < 0:
            return 0
        needs = self._needs(job)
        totals = [self._nodes * there for there in self._node]
        now = min(int((totals[i] - self._used[i]) / need + _SLACK) for i, need in enumerate(needs) if need)
        wait = max(self._work[i] / totals[i] for i, need in enumerate(needs) if need)
        slots = self.slots(job)
        later = slots * (math.floor((within - wait) / seconds + _SLACK) + 1) if wait <= within else 0
        return max(0, min(now, slots), later)

    def _on_node(self, job: JobRequest) -> int:
        """Runs of it that a node has room for at the same time."""
        return min(there // need for need, there in zip(_asked(job), self._node, strict=True) if need)

    def _needs(self, job: JobRequest) -> list[float]:
        """What a job takes of the pack; of what is scarcest its share, with what nobody can use beside it."""
        most, slots = self._on_node(job), self.slots(job)
        return [
            self._nodes * there / slots if need and there // need == most else float(need * job.clones)
            for need, there in zip(_asked(job), self._node, strict=True)
        ]


def _asked(job: JobRequest) -> tuple[int, int, int]:
    return job.cores, job.memory_mb, job.gpus


@dataclass(slots=True, kw_only=True)
class Target:
    """A work pack that work can be given to: one that there is, or one planned in this round."""

    nodes: int
    seconds: float
    """How long it can work."""
    load: Load
    allocation_id: str | None = None
    view: PackView | None = None
    """None for a planned one."""
    over: frozenset[int] = frozenset()
    """Tasks that it is done with, or was told to be."""
    running: bool = False
    stream: int | None = None
    """The task whose events it streams."""
    ends: int | None = None
    """The task of events that is to make place."""
    makes_place: bool = False
    """It gets no further job, so that it can end; its events go on until its jobs have ended."""
    shares: dict[int, int] = field(default_factory=dict)

    def has(self, task_id: int) -> bool:
        """Whether it has the task, and may be given more of it."""
        return task_id in self.shares or (
            self.view is not None and self.view.part(task_id) is not None and not self.had(task_id)
        )

    def had(self, task_id: int) -> bool:
        """Whether it must not be given the task again."""
        return task_id in self.over

    @property
    def part(self) -> PartView | None:
        """The stream as it is seen; None when there is none or it is planned."""
        if self.view is None or self.stream is None:
            return None
        return self.view.part(self.stream)

    @property
    def has_jobs(self) -> bool:
        """Whether jobs are in it, or may be."""
        view = self.view
        return view is None or view.job_cores != 0 or any(p.of_jobs and p.held for p in view.parts)

    def give(self, pool: Pool, count: int) -> None:
        """Place some of what is ready here."""
        if count > 0:
            self.shares[pool.task.task_id] = self.shares.get(pool.task.task_id, 0) + count
            pool.left -= count
            pool.placed = True

    def take_back(self, pool: Pool) -> None:
        """Place elsewhere what was to go here."""
        pool.left += self.shares.pop(pool.task.task_id, 0)
        pool.placed = pool.left < pool.task.ready


@dataclass(slots=True, kw_only=True)
class Ground:
    """Nodes without a pack: free ones of a running allocation, or those that a new one could have."""

    free: int
    seconds: float
    allocation_id: str | None = None
    shape: Shape | None = None
    packs: list[PackPlan] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def start(self, pack: PackPlan) -> None:
        """A pack that is no work pack."""
        self.free -= pack.nodes
        self.packs.append(pack)

    def plans(self) -> Iterator[PackPlan]:
        """All packs to be started. Those of a new allocation have all its nodes, as far as there is work."""
        yield from self.packs
        missing = 0
        if self.shape is not None:
            missing = max(0, self.shape.fewest_nodes - self.used)
        for target in self.targets:
            work = tuple(Share(task_id=t, events=n) for t, n in target.shares.items())
            yield PackPlan(kind="work", nodes=target.nodes + missing, work=work)
            missing = 0

    @property
    def used(self) -> int:
        """Nodes of its packs."""
        return sum(p.nodes for p in self.packs) + sum(t.nodes for t in self.targets)
