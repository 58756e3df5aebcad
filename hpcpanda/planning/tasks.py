"""What each task needs of a planning round, and why it is where it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hpcpanda.domain.room import Room
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import TaskState
from hpcpanda.planning.actions import Reason
from hpcpanda.planning.packs import Pool, Target
from hpcpanda.planning.situation import Situation, TaskView


def largest_job(site: Site) -> Room:
    """What a new allocation has room for: one may have fewer nodes than all together."""
    room = Room.of_site(site)
    return replace(room, nodes=min(room.nodes, site.queue.max_nodes or room.nodes))


class Tasks:
    """Tasks by what is to be done with them, highest priority first."""

    def __init__(self, s: Situation, targets: list[Target]) -> None:
        self._s = s
        self._targets = targets
        self.jobs: list[Pool] = []
        """On one node each."""
        self.mpi: list[Pool] = []
        self.events: list[Pool] = []
        self.merges: list[TaskView] = []
        self.given_back: list[int] = []
        self.reasons: dict[int, Reason] = {}
        for task in sorted(s.tasks, key=lambda t: (-t.priority, t.task_id)):
            self._sort(task)

    @property
    def pools(self) -> Iterator[Pool]:
        """All work."""
        yield from (*self.jobs, *self.mpi, *self.events)

    def backs_off(self, pool: Pool) -> bool:
        """Whether only packs that have the task may be given more of it."""
        return self._s.now < pool.task.not_before

    def fresh(self, pools: list[Pool]) -> list[Pool]:
        """Pools of which something may be started in new packs."""
        return [p for p in pools if p.left and not self.backs_off(p)]

    def _sort(self, task: TaskView) -> None:
        """Find out what a task needs, and note why it is where it is."""
        if task.state.final or task.fault:
            self._refuse(task, Reason.FINAL if task.state.final else Reason.FAULT)
        elif task.state is TaskState.MERGING:
            self._sort_merge(task)
        else:
            self.reasons[task.task_id] = self._reason_of(task)
            if task.ready or (task.staging and self._s.draining):
                self._sort_work(task)

    def _sort_merge(self, task: TaskView) -> None:
        merging = any(
            p.kind == "merge" and p.part(task.task_id) for a in self._s.allocations for p in a.packs
        )
        if task.merged:
            self._refuse(task, Reason.MERGED)
        elif merging:
            self._refuse(task, Reason.MERGING)
        elif not task.mergeable:
            self._refuse(task, Reason.WAITING_FOR_COMMITS)
        elif hindrance := self._hindrance(task):
            self._refuse(task, hindrance)
        else:
            self._refuse(task, Reason.WAITING_FOR_NODES)
            self.merges.append(task)

    def _sort_work(self, task: TaskView) -> None:
        hindrance = self._hindrance(task)
        if task.job is not None and largest_job(self._s.site).refusal(task.job) is not None:
            hindrance = Reason.DOES_NOT_FIT
        at_work = hindrance is Reason.BACKING_OFF and self._has(task)
        if hindrance is not None and not at_work:
            self._refuse(task, hindrance)
            return
        pool = Pool(task=task, left=task.ready)
        if task.job is None:
            self.events.append(pool)
        else:
            (self.mpi if task.job.nodes > 1 else self.jobs).append(pool)

    def _has(self, task: TaskView) -> bool:
        return any(t.has(task.task_id) for t in self._targets)

    def _refuse(self, task: TaskView, reason: Reason) -> None:
        self.reasons[task.task_id] = reason
        if task.ready or task.staging:
            self.given_back.append(task.task_id)

    def _hindrance(self, task: TaskView) -> Reason | None:
        if self._s.draining:
            return Reason.DRAINING
        return Reason.BACKING_OFF if self._s.now < task.not_before else None

    def _reason_of(self, task: TaskView) -> Reason:
        mine = [p for a in self._s.allocations for p in a.packs if p.kind != "merge" and p.part(task.task_id)]
        if not mine:
            return Reason.STAGING if task.staging and not task.ready else Reason.NO_WORK
        return Reason.RUNNING if any(p.cores for p in mine) else Reason.STARTING
