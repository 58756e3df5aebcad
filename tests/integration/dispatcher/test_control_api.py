"""Control of tasks over HTTP: rights, answers, the audit log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from support.dispatcher import RunningDispatcher, spec

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.dispatcher.run import create_token
from hpcpanda.domain.errors import Forbidden, IllegalTransition, InvalidValue, NotFound
from hpcpanda.domain.states import TaskState


def test_the_owner_controls_a_task(shared: RunningDispatcher) -> None:
    """By the commands of the client; what makes no sense is refused with the state it is in."""
    with shared.user() as user:
        task_id = user.submit(spec(10)).task_id
        assert user.pause(task_id).state is TaskState.PAUSED
        assert [t.task_id for t in user.tasks(state=TaskState.PAUSED).tasks] == [task_id]
        assert user.resume(task_id).state is TaskState.READY
        assert user.retry(task_id).state is TaskState.READY
        changes = user.set_priority(task_id, -7).changes
        assert changes is not None
        assert changes.priority == -7
        soon = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=1)))
        changes = user.set_deadline(task_id, soon).changes
        assert changes is not None
        assert changes.deadline == soon.astimezone(UTC)
        user.cancel(task_id)
        for act in (user.pause, user.resume, user.retry):
            with pytest.raises(IllegalTransition, match="aborted"):
                act(task_id)


def test_nobody_else_does(shared: RunningDispatcher) -> None:
    """Other users are refused, administrators are not; a task that is not there is not found."""
    with shared.user() as user:
        task_id = user.submit(spec(10)).task_id
    with shared.other_user("eve") as eve:
        for act in (eve.pause, eve.resume, eve.retry):
            with pytest.raises(Forbidden, match="belongs to local"):
                act(task_id)
        with pytest.raises(Forbidden):
            eve.set_priority(task_id, 1)
        with pytest.raises(Forbidden):
            eve.set_deadline(task_id, None)
        with pytest.raises(Forbidden, match="scope admin"):
            eve.lift_quarantine("local")
        with pytest.raises(NotFound):
            eve.pause(10**15)
    admin_token = create_token(shared.settings, "admin", "root")
    with DispatcherClient(shared.url, admin_token) as admin, shared.edge("quarry"):
        assert admin.pause(task_id).message == "paused by root"
        assert admin.lift_quarantine("quarry").edge == "quarry"
        entries = admin.audit(who="user:root", limit=10).entries
    assert [entry.did for entry in entries[:2]] == [
        "DELETE /v1/admin/quarantine/quarry",
        f"POST /v1/tasks/{task_id}/pause",
    ]


def test_nonsense_is_refused(shared: RunningDispatcher) -> None:
    """By the field that is wrong."""
    with shared.user() as user:
        task_id = user.submit(spec(10)).task_id
        with pytest.raises(InvalidValue, match="priority: 1001 is outside"):
            user.set_priority(task_id, 1001)
        with pytest.raises(InvalidValue, match="without a time zone"):
            user.set_deadline(task_id, datetime(2030, 1, 1))  # noqa: DTZ001 - that is the point
