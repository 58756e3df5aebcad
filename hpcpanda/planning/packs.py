"""Packs and nodes as a planning round sees them: what they have, what they can take, and what they are to get."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.site import Site
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


class Needs:
    """What a job takes of packs; worked out once for a job and a number of nodes, for a plan looks at many packs."""

    def __init__(self, site: Site) -> None:
        node = site.nodes
        self.node = (node.cores, node.memory_mb, node.gpus)
        self._known: dict[tuple[int, int], tuple[JobRequest, int, tuple[float, float, float]]] = {}

    def of(self, job: JobRequest, nodes: int) -> tuple[int, tuple[float, float, float]]:
        """Jobs that run at the same time in an empty pack of so many nodes, and cores, memory and GPUs that one keeps
        busy.

        The jobs are at least one, since clones may follow each other. Of what is scarcest a job keeps its share, with
        what no other of its kind can use beside it.
        """
        key = (id(job), nodes)
        known = self._known.get(key)
        if known is None:
            asked = (job.cores, job.memory_mb, job.gpus)
            on_node = min(there // need for need, there in zip(asked, self.node, strict=True) if need)
            slots = max(1, on_node * nodes // job.clones)
            cores, memory, gpus = (
                nodes * there / slots if need and there // need == on_node else float(need * job.clones)
                for need, there in zip(asked, self.node, strict=True)
            )
            known = self._known[key] = (job, slots, (cores, memory, gpus))
        return known[1:]


class Load:
    """Cores, memory and GPUs that jobs have of a pack, now and for how long."""

    __slots__ = ("_held", "_needs", "_nodes", "_used", "_work", "cores", "seconds")

    def __init__(self, needs: Needs, nodes: int) -> None:
        self._needs = needs
        self._nodes = nodes
        self._held: dict[int, int] = {}
        self._used = (0.0, 0.0, 0.0)
        self._work = (0.0, 0.0, 0.0)
        self.cores = 0.0
        """Cores that jobs hold or wait for."""
        self.seconds = 0.0
        """How long the jobs keep all cores busy."""

    def add(self, job: JobRequest, count: int, seconds: float) -> None:
        """Count jobs that the pack has, each expected to run for so long."""
        _, (cores, memory, gpus) = self._needs.of(job, self._nodes)
        used, work, runs = self._used, self._work, count * job.clones
        self._used = (used[0] + runs * job.cores, used[1] + runs * job.memory_mb, used[2] + runs * job.gpus)
        self._held[id(job)] = self._held.get(id(job), 0) + count
        count_s = count * seconds
        self._work = (work[0] + count_s * cores, work[1] + count_s * memory, work[2] + count_s * gpus)
        self.cores = self._used[0]
        self.seconds = self._work[0] / (self._nodes * self._needs.node[0])

    def at_least(self, cores: float) -> None:
        """The pack says that jobs have so many cores."""
        self._used = (max(self._used[0], cores), *self._used[1:])
        self.cores = self._used[0]

    def room_for(self, job: JobRequest, seconds: float, within: float) -> int:
        """Jobs that can be started within so many seconds besides those that the pack has."""
        if within < 0:
            return 0
        slots, needs = self._needs.of(job, self._nodes)
        now, wait = slots - self._held.get(id(job), 0), 0.0
        asked = (job.cores, job.memory_mb, job.gpus)
        for ask, need, there, used, work in zip(
            asked, needs, self._needs.node, self._used, self._work, strict=True
        ):
            if need:
                total = self._nodes * there
                now = min(now, int((total - used) / (ask * job.clones) + _SLACK))
                wait = max(wait, work / total)
        later = slots * (math.floor((within - wait) / seconds + _SLACK) + 1) if wait <= within else 0
        return max(0, now, later)


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
    seen: PartView | None = None
    """The stream that it had when the round began."""
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
        if self.seen is not None and self.seen.task_id == self.stream:
            return self.seen
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
