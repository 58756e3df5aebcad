"""Route for user interfaces: the change stream."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request

from hpcpanda.dispatcher.context import ContextDep, TasksRead
from hpcpanda.dispatcher.limits import StrictJsonRoute
from hpcpanda.dispatcher.reports.stream import EventStream, resume_time
from hpcpanda.dispatcher.store.codec import MAX_ID
from hpcpanda.domain.errors import Forbidden, NotFound

router = APIRouter(prefix="/v1/changes", tags=["reports"], route_class=StrictJsonRoute)

MAX_WANTED = 100
"""Most tasks that one stream names."""

TaskNumber = Annotated[int, Query(ge=1, le=MAX_ID)]
Wanted = Annotated[list[TaskNumber] | None, Query(max_length=MAX_WANTED)]
LastEventId = Annotated[str | None, Header(max_length=200)]


@router.get("", response_class=EventStream, include_in_schema=False)
async def changes(
    caller: TasksRead,
    context: ContextDep,
    request: Request,
    task_id: Wanted = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """Tell as it happens which of the tasks that the caller sees have changed. (It never ends: tools that try every route
    of the OpenAPI document would wait for it, so it is described elsewhere.)"""

    async def check() -> None:
        now = await context.identity.door.admit(request, now=context.clock())
        if now.sight != caller.sight:
            raise Forbidden("the caller sees other tasks now")

    wanted = frozenset(task_id) if task_id else None
    with ExitStack() as stack:
        listener = stack.enter_context(
            context.changes.listening(caller.key, sight=caller.sight, wanted=wanted)
        )
        since = resume_time(last_event_id, context.clock())
        begun = await context.changes.begin(listener, since)
        if wanted is not None and not listener.any.is_set():
            raise NotFound("there is none of these tasks, or none that you may see")
        return EventStream(
            listener,
            stack.pop_all(),
            begun=begun,
            clock=context.clock,
            until=caller.expires,
            check=check,
        )
