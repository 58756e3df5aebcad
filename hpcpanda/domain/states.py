"""States and their transitions: one table each, the only place that says what may follow what."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import assert_never

from hpcpanda.domain.errors import IllegalTransition


class TaskState(StrEnum):
    """Where a task is. Names are PanDA's (JEDI task states) where PanDA has them."""

    PENDING = "pending"
    """Accepted; the dataset that it reads is open and has no files yet."""
    READY = "ready"
    """Accepted; nothing of it has been leased yet."""
    SCOUTING = "scouting"
    """Its first jobs are run alone; the rest follows when they have shown what a job needs."""
    RUNNING = "running"
    """Some of its events are or were leased."""
    PAUSED = "paused"
    """Nothing more of it is leased until its user resumes it; what runs is finished and counts."""
    MERGING = "merging"
    """Every event is done or set aside as failed; outputs are being written."""
    DONE = "done"
    """All events are in the outputs."""
    FINISHED = "finished"
    """The outputs are complete but for failed events that the task's policy allows."""
    FAILED = "failed"
    """Stopped: more events failed than its policy allows, or it cannot be run or merged."""
    ABORTED = "aborted"
    """Cancelled by its user."""

    @property
    def final(self) -> bool:
        """Whether the task has come to an end: it changes no more, unless its user has it tried again."""
        return self in _FINAL


_FINAL = frozenset({TaskState.DONE, TaskState.FINISHED, TaskState.FAILED, TaskState.ABORTED})


class TaskEvent(StrEnum):
    """What happens to a task."""

    GROW = "grow"
    """Files of the dataset that it reads have come."""
    LEASE = "lease"
    SCOUTED = "scouted"
    """The scouts have shown what a job needs."""
    ALL_SETTLED = "all-settled"
    OUTPUT_COMPLETE = "output-complete"
    OUTPUT_COMPLETE_WITH_LOSSES = "output-complete-with-losses"
    FAIL = "fail"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME_PENDING = "resume-pending"
    RESUME_READY = "resume-ready"
    RESUME_RUNNING = "resume-running"
    RESUME_SCOUTING = "resume-scouting"
    RETRY = "retry"
    """Its user wants what has failed to be tried again, or what has come since to be read."""
    REOPEN = "reopen"
    """Finished events were lost with the site that had them, and are to be done again."""


RESUMES: Mapping[TaskState, TaskEvent] = {
    TaskState.PENDING: TaskEvent.RESUME_PENDING,
    TaskState.READY: TaskEvent.RESUME_READY,
    TaskState.SCOUTING: TaskEvent.RESUME_SCOUTING,
    TaskState.RUNNING: TaskEvent.RESUME_RUNNING,
}
"""How a paused task goes on, by the state in which it was paused: these can be paused."""

_TASK: dict[tuple[TaskState, TaskEvent], TaskState] = {
    (TaskState.PENDING, TaskEvent.GROW): TaskState.READY,
    (TaskState.READY, TaskEvent.LEASE): TaskState.RUNNING,
    (TaskState.RUNNING, TaskEvent.LEASE): TaskState.RUNNING,
    (TaskState.SCOUTING, TaskEvent.LEASE): TaskState.SCOUTING,
    (TaskState.SCOUTING, TaskEvent.SCOUTED): TaskState.RUNNING,
    (TaskState.RUNNING, TaskEvent.SCOUTED): TaskState.RUNNING,
    (TaskState.RUNNING, TaskEvent.ALL_SETTLED): TaskState.MERGING,
    (TaskState.PAUSED, TaskEvent.ALL_SETTLED): TaskState.MERGING,
    (TaskState.MERGING, TaskEvent.REOPEN): TaskState.RUNNING,
    (TaskState.DONE, TaskEvent.RETRY): TaskState.RUNNING,
    (TaskState.FINISHED, TaskEvent.RETRY): TaskState.RUNNING,
    (TaskState.FAILED, TaskEvent.RETRY): TaskState.RUNNING,
    (TaskState.MERGING, TaskEvent.OUTPUT_COMPLETE): TaskState.DONE,
    (TaskState.MERGING, TaskEvent.OUTPUT_COMPLETE_WITH_LOSSES): TaskState.FINISHED,
} | {
    (state, event): to
    for state in TaskState
    if not state.final
    for event, to in ((TaskEvent.FAIL, TaskState.FAILED), (TaskEvent.CANCEL, TaskState.ABORTED))
}
_TASK |= {(state, TaskEvent.PAUSE): TaskState.PAUSED for state in RESUMES}
_TASK |= {(TaskState.PAUSED, event): state for state, event in RESUMES.items()}


def next_task_state(state: TaskState, event: TaskEvent) -> TaskState:
    """The state after ``event``.

    Raises:
        IllegalTransition: the event makes no sense in this state.
    """
    try:
        return _TASK[state, event]
    except KeyError:
        raise IllegalTransition(f"a task that is {state} cannot take '{event}'") from None


class AllocationState(StrEnum):
    """Where an allocation is, as its edge sees it."""

    PLANNED = "planned"
    """Recorded by the edge; not known to be in the batch system."""
    QUEUED = "queued"
    RUNNING = "running"
    ENDED = "ended"
    """Out of the batch system; its journals may still hold events to commit."""
    CLOSED = "closed"
    """Everything of it is committed or given back."""


class AllocationEvent(StrEnum):
    """What happens to an allocation."""

    SUBMITTED = "submitted"
    STARTED = "started"
    REQUEUED = "requeued"
    """It ran, was ended, and waits to run again under the same name."""
    GONE = "gone"
    RECOVERED = "recovered"


def next_allocation_state(state: AllocationState, event: AllocationEvent) -> AllocationState:
    """The state after ``event``. Batch systems report late, twice and out of order, so an event that
    is behind the state changes nothing. Only a requeue goes back, and only from running."""
    order = list(AllocationState)
    match event:
        case AllocationEvent.REQUEUED:
            return AllocationState.QUEUED if state is AllocationState.RUNNING else state
        case AllocationEvent.SUBMITTED:
            to = AllocationState.QUEUED
        case AllocationEvent.STARTED:
            to = AllocationState.RUNNING
        case AllocationEvent.GONE:
            to = AllocationState.ENDED
        case AllocationEvent.RECOVERED:
            to = AllocationState.CLOSED
        case _:
            assert_never(event)
    return max(state, to, key=order.index)
