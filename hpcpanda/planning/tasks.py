"""What each task needs of a planning round, and why it is where it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hpcpanda.domain.room import Room
from hpcpanda.domain.states import TaskState
from hpcpanda.planning.actions import Reason
from hpcpanda.planning.packs import Pool, Target
from hpcpanda.planning.requests import startup_s
from hpcpanda.planning.situation import PackView, Situation, TaskView


def largest_job(s: Situation) -> Room:
    """What a new allocation has room for: one may have fewer nodes than all together, and has to start up first."""
    room = Room.of_site(s.site)
    nodes = min(room.nodes, s.site.queue.max_nodes or room.nodes)
    return replace(room, nodes=nodes, seconds=max(0.0, room.seconds - startup_s(s)))


def urgent(s: Situation, task: TaskView) -> bool:
    """Whether a task shall not wait for a window: it is of raised priority, or its deadline is no further away than
    an allocation that has to wait in the queue."""
    if task.priority > 0:
        return True
    if task.deadline is None:
        return False
    wait_s = max((w.p90_s for w in s.forecast.queue_waits), default=0.0)
    return task.deadline - s.now <= wait_s + s.site.allocation.walltime_s


class Tasks:
    """Tasks by what is to be done with them, highest priority first."""

    def __init__(self, s: Situation, targets: list[Target]) -> None:
        self._s = s
        self._targets = targets
        self.largest = largest_job(s)
        """Room for the largest job in a new allocation."""
        self.jobs: list[Pool] = []
        """On one node each."""
        self.mpi: list[Pool] = []
        self.events: list[Pool] = []
        self.merges: list[TaskView] = []
        self.partial: list[TaskView] = []
        """Tasks that go on and have enough for one of several files."""
        self.given_back: list[int] = []
        self.reasons: dict[int, Reason] = {}
        self._packs: dict[int, list[PackView]] = {}
        self._merging: set[int] = set()
        for allocation in s.allocations:
            for pack in allocation.packs:
                self._note(pack)
        for task in sorted(s.tasks, key=lambda t: (-t.priority, t.task_id)):
            self._sort(task)

    def _note(self, pack: PackView) -> None:
        """Remember which tasks a pack has."""
        for part in pack.parts:
            if pack.kind == "merge":
                self._merging.add(part.task_id)
            else:
                self._packs.setdefault(part.task_id, []).append(pack)

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
        elif task.state is TaskState.PAUSED:
            self._refuse(task, Reason.PAUSED)
        elif task.state is TaskState.MERGING:
            self._sort_merge(task)
        else:
            self.reasons[task.task_id] = self._reason_of(task)
            if task.mergeable and task.task_id not in self._merging and self._hindrance(task) is None:
                self.partial.append(task)
            if task.ready or (task.staging and self._s.draining):
                self._sort_work(task)

    def _sort_merge(self, task: TaskView) -> None:
        if task.merged:
            self._refuse(task, Reason.MERGED)
        elif task.task_id in self._merging:
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
        if task.job is not None and self.largest.refusal(task.job) is not None:
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
        mine = self._packs.get(task.task_id)
        if not mine:
            return Reason.STAGING if task.staging and not task.ready else Reason.NO_WORK
        return Reason.RUNNING if any(p.cores for p in mine) else Reason.STARTING
