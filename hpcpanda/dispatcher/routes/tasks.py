"""Routes for users: tasks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query

from hpcpanda.dispatcher.context import ContextDep, TaskId, TasksRead, TasksWrite
from hpcpanda.dispatcher.limits import StrictJsonRoute
from hpcpanda.dispatcher.store.codec import MAX_ID
from hpcpanda.dispatcher.usecases.explain import explain_task
from hpcpanda.dispatcher.usecases.tasks import (
    cancel_task,
    get_task,
    list_failures,
    list_outputs,
    list_tasks,
    submit_task,
)
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.task_views import Explanation, FailedEventPage, Outputs, Task, TaskPage

router = APIRouter(prefix="/v1/tasks", tags=["tasks"], route_class=StrictJsonRoute)

IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
Filter = Annotated[str | None, Query(max_length=128)]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int | None, Query(ge=0, le=MAX_ID)]


@router.post("", status_code=201)
async def submit(
    spec: TaskSpec, caller: TasksWrite, context: ContextDep, idempotency_key: IdempotencyKey = None
) -> Task:
    """Submit a task. Sent again with the same key, it gives the same task."""
    task = await submit_task(
        context.store.writing(),
        spec=spec,
        owner=caller.name,
        team=caller.team_for(spec.group),
        idempotency_key=idempotency_key,
        now=context.clock(),
    )
    context.bell.ring()
    return task


@router.get("")
async def list_all(
    caller: TasksRead,
    context: ContextDep,
    state: TaskState | None = None,
    name: Filter = None,
    owner: Filter = None,
    limit: Limit = 100,
    after: After = None,
) -> TaskPage:
    """List tasks, newest first."""
    return await list_tasks(
        context.store.reading(),
        state=state,
        name=name,
        owner=owner,
        sight=caller.sight,
        limit=limit,
        after=after,
        now=context.clock(),
    )


@router.get("/{task_id}")
async def get(task_id: TaskId, _: TasksRead, context: ContextDep) -> Task:
    """Look at a task."""
    return await get_task(context.store.reading(), task_id=task_id, now=context.clock())


@router.post("/{task_id}/cancel")
async def cancel(task_id: TaskId, caller: TasksWrite, context: ContextDep) -> Task:
    """Abort a task of one's own."""
    return await cancel_task(
        context.store.writing(), task_id=task_id, caller=caller.name, now=context.clock()
    )


@router.get("/{task_id}/outputs")
async def outputs(task_id: TaskId, _: TasksRead, context: ContextDep) -> Outputs:
    """List the merged files of a task."""
    return await list_outputs(context.store.reading(), task_id=task_id)


@router.get("/{task_id}/failures")
async def failures(
    task_id: TaskId, _: TasksRead, context: ContextDep, after: After = None, limit: Limit = 100
) -> FailedEventPage:
    """List the failed events of a task, by number."""
    return await list_failures(context.store.reading(), task_id=task_id, after=after, limit=limit)


@router.get("/{task_id}/explain")
async def explain(task_id: TaskId, _: TasksRead, context: ContextDep) -> Explanation:
    """Say why a task is where it is."""
    return await explain_task(
        context.store.reading(), task_id=task_id, terms=context.terms, now=context.clock()
    )
