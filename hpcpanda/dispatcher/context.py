"""What the routes are given: the parts of one dispatcher, and who is calling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Path, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes

from hpcpanda.dispatcher.bell import Bell
from hpcpanda.dispatcher.clock import Clock
from hpcpanda.dispatcher.identity.audit import AuditedStore, Deed
from hpcpanda.dispatcher.identity.door import SAFE, address_of
from hpcpanda.dispatcher.identity.parts import Identity
from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.dispatcher.identity.scopes import PUBLIC, Scope
from hpcpanda.dispatcher.reports.changes import Changes
from hpcpanda.dispatcher.reports.metrics import Metrics
from hpcpanda.dispatcher.store.codec import MAX_ID
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.wire import Wire
from hpcpanda.domain.errors import NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts of one dispatcher."""

    database: Database
    store: Store
    identity: Identity
    terms: Terms
    clock: Clock
    bell: Bell
    wire: Wire
    metrics: Metrics
    changes: Changes


async def context_of(request: Request) -> Context:
    """The parts of the dispatcher that answers a request."""
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


PlainContext = Annotated[Context, Depends(context_of)]


async def _caller(request: Request, context: PlainContext) -> Principal:
    return await context.identity.door.admit(request, now=context.clock())


Caller = Annotated[Principal, Depends(_caller)]


async def _anyone(scopes: SecurityScopes, request: Request, context: PlainContext) -> None:
    """Let everybody in, not too often."""
    assert scopes.scopes == [PUBLIC]
    context.identity.door.admit_stranger(request, now=context.clock())


async def _bearer(
    scopes: SecurityScopes,
    request: Request,
    caller: Caller,
    _shown_in_openapi: Annotated[object, Depends(HTTPBearer(auto_error=False))],
) -> Principal:
    scope = Scope(scopes.scopes[0])
    caller.require(scope)
    if scope is not Scope.EDGE:
        request.state.actor = caller
    return caller


async def _audited(request: Request, context: PlainContext) -> Context:
    """The parts of the dispatcher; what a caller changes through them is written down as theirs."""
    if request.method in SAFE:
        return context

    def deed() -> Deed | None:
        actor: Principal | None = getattr(request.state, "actor", None)
        if actor is None:
            return None
        return Deed(who=actor.key, did=f"{request.method} {request.url.path}", address=address_of(request))

    audited = AuditedStore(context.database, deed=deed, clock=context.clock, told=context.store.told)
    return replace(context, store=audited)


async def _visible_task(
    task_id: Annotated[int, Path(ge=1, le=MAX_ID)], caller: Caller, context: PlainContext
) -> int:
    """Refuse to know of a task that the caller does not see."""
    if caller.sight is not None:
        async with context.store.reading() as uow:
            if not await uow.teams.seen(task_id, caller.sight):
                raise NotFound(f"there is no task {task_id}, or none that you may see")
    return task_id


ContextDep = Annotated[Context, Depends(_audited)]
"""The parts of the dispatcher; what is changed through them is written into the audit log."""
TaskId = Annotated[int, Depends(_visible_task)]
"""Number of a task that the caller sees."""
Anyone = Annotated[None, Security(_anyone, scopes=[PUBLIC])]
"""The route needs no token."""
Known = Annotated[Principal, Security(_bearer, scopes=[Scope.SELF])]
"""The route needs any token."""
TasksRead = Annotated[Principal, Security(_bearer, scopes=[Scope.TASKS_READ])]
"""The route shows tasks."""
TasksWrite = Annotated[Principal, Security(_bearer, scopes=[Scope.TASKS_WRITE])]
"""The route changes tasks."""
EdgesRead = Annotated[Principal, Security(_bearer, scopes=[Scope.EDGES_READ])]
"""The route shows edges."""
MetricsRead = Annotated[Principal, Security(_bearer, scopes=[Scope.METRICS_READ])]
"""The route shows figures of the whole."""
Edge = Annotated[Principal, Security(_bearer, scopes=[Scope.EDGE])]
"""The route is for one edge."""
Admin = Annotated[Principal, Security(_bearer, scopes=[Scope.ADMIN])]
"""The route is for those who run the dispatcher."""
