"""The table of task states: whatever happens in whatever order, a task can be ended, and an end is an end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import IllegalTransition
from hpcpanda.domain.states import RESUMES, TaskEvent, TaskState, next_task_state

ROOT = Path(__file__).parents[2]
STARTS = (TaskState.READY, TaskState.PENDING, TaskState.SCOUTING)


def after(state: TaskState, event: TaskEvent) -> TaskState | None:
    """The next state; None when that is refused."""
    try:
        return next_task_state(state, event)
    except IllegalTransition:
        return None


@given(st.lists(st.sampled_from(TaskEvent), max_size=40), st.sampled_from(STARTS))
def test_whatever_happens_a_task_can_be_ended(events: list[TaskEvent], start: TaskState) -> None:
    """What is refused changes nothing; while a task has not ended it can be cancelled and can fail; once it has, only
    its user's wish to try again is heard, and only when it was not aborted."""
    state = start
    for event in events:
        to = after(state, event)
        if state.final:
            assert to in (None, TaskState.RUNNING)
            assert (to is not None) == (event is TaskEvent.RETRY and state is not TaskState.ABORTED)
        state = to or state
    if not state.final:
        assert after(state, TaskEvent.CANCEL) is TaskState.ABORTED
        assert after(state, TaskEvent.FAIL) is TaskState.FAILED


def test_every_state_is_reached() -> None:
    """From where a task begins; and from every state but an end, a good end is reached."""
    reached, todo = set(STARTS), list(STARTS)
    while todo:
        state = todo.pop()
        new = {to for event in TaskEvent if (to := after(state, event)) is not None} - reached
        reached |= new
        todo += new
    assert reached == set(TaskState)


def test_a_paused_task_goes_on_where_it_was() -> None:
    """Whatever can be paused can be resumed, and nothing else."""
    for state in TaskState:
        paused = after(state, TaskEvent.PAUSE)
        assert (paused is TaskState.PAUSED) == (state in RESUMES)
        if state in RESUMES:
            assert after(TaskState.PAUSED, RESUMES[state]) is state


@pytest.mark.parametrize("state", TaskState)
def test_every_state_is_documented(state: TaskState) -> None:
    """With what may follow it, exactly."""
    text = (ROOT / "docs/reference/task-states.md").read_text()
    row = re.search(rf"^\| `{state}` \| .* \| (.*) \|$", text, re.MULTILINE)
    assert row is not None, state
    told = set(re.findall(r"`([\w-]+)`", row[1]))
    assert told == {
        to.value for event in TaskEvent if (to := after(state, event)) is not None and to is not state
    }
