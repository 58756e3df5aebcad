"""What a pack has to do, and how the edge's messages change it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hpcpanda.allocation.plan import LeasedEvents, TaskWork
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.splitting import JobSlice

Work = tuple[TaskWork, ...]


def join(parts: Iterable[LeasedEvents]) -> tuple[LeasedEvents, ...]:
    """One part an epoch."""
    by_epoch: dict[int, IntervalSet] = {}
    slices: dict[int, dict[int, JobSlice]] = {}
    for part in parts:
        by_epoch[part.epoch] = by_epoch.get(part.epoch, EMPTY) | part.events
        slices.setdefault(part.epoch, {}).update((s.job, s) for s in part.slices)
    return tuple(
        LeasedEvents(epoch=e, events=s, slices=tuple(slices[e].values())) for e, s in by_epoch.items()
    )


def added(work: Work, more: TaskWork) -> Work:
    """The work with that of a further task, or with more of a task that is there."""
    if any(w.task_id == more.task_id for w in work):
        return topped_up(work, more.task_id, more.events, more.spec.job_request)
    return (*work, replace(more, events=join(more.events)))


def topped_up(
    work: Work, task_id: int, events: tuple[LeasedEvents, ...], job: JobRequest | None = None
) -> Work:
    """The work with more events of a task, and with what its jobs ask for now; unchanged when the task is not there."""

    def more(w: TaskWork) -> TaskWork:
        spec = w.spec if job is None else replace(w.spec, job=job)
        return replace(w, spec=spec, events=join(w.events + events))

    return tuple(more(w) if w.task_id == task_id else w for w in work)


def without_epochs(work: Work, task_id: int, epochs: Iterable[int]) -> Work:
    """The work without what is leased under these epochs of a task."""
    gone = frozenset(epochs)
    return tuple(
        replace(w, events=tuple(e for e in w.events if e.epoch not in gone)) if w.task_id == task_id else w
        for w in work
    )


def without_task(work: Work, task_id: int) -> Work:
    """The work without that of a task."""
    return tuple(w for w in work if w.task_id != task_id)
