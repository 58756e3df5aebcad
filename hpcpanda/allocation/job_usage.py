"""How much of a node its jobs hold: for each core, and for each task."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from hpcpanda.allocation.job_messages import JobLoad


@dataclass(slots=True)
class _Held:
    task_id: int
    slots: tuple[int, ...]
    by_core: float
    """Since when it is not counted for the cores yet."""
    by_task: float
    """Since when it is not counted for the task yet."""


class JobUsage:
    """The slots that jobs hold, over time. Times are seconds on one clock, and may be a little out of order."""

    def __init__(self, slots: int, now: float) -> None:
        self._held: dict[int, _Held] = {}
        self._core_s = [0.0] * slots
        self._task_s: defaultdict[int, float] = defaultdict(float)
        self._cores_told = self._tasks_told = now

    def begin(self, ticket: int, task_id: int, slots: tuple[int, ...], now: float) -> None:
        """A job holds these slots."""
        self._held[ticket] = _Held(task_id, slots, now, now)

    def end(self, ticket: int, now: float) -> None:
        """A job holds its slots no more."""
        held = self._held.pop(ticket)
        self._count_cores(held, now)
        self._count_task(held, now)

    def occupancy(self, now: float) -> tuple[float, ...]:
        """Share of the time since the last call that a job held each slot, 0..1."""
        for held in self._held.values():
            self._count_cores(held, now)
        over = max(now - self._cores_told, 1e-9)
        shares = tuple(min(1.0, s / over) for s in self._core_s)
        self._core_s = [0.0] * len(self._core_s)
        self._cores_told = now
        return shares

    def loads(self, now: float) -> tuple[JobLoad, ...]:
        """What each task holds, and held in the mean since the last call."""
        cores: defaultdict[int, int] = defaultdict(int)
        for held in self._held.values():
            self._count_task(held, now)
            cores[held.task_id] += len(held.slots)
        over = max(now - self._tasks_told, 1e-9)
        loads = tuple(JobLoad(task_id=t, cores=cores[t], busy=s / over) for t, s in self._task_s.items())
        self._task_s.clear()
        self._tasks_told = now
        return loads

    def _count_cores(self, held: _Held, now: float) -> None:
        for slot in held.slots:
            self._core_s[slot] += max(0.0, now - held.by_core)
        held.by_core = max(now, held.by_core)

    def _count_task(self, held: _Held, now: float) -> None:
        self._task_s[held.task_id] += len(held.slots) * max(0.0, now - held.by_task)
        held.by_task = max(now, held.by_task)
