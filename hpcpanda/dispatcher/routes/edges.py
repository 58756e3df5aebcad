"""Routes for edges: registration, leases, sync."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from hpcpanda.dispatcher.context import ContextDep, Edge, EdgesRead
from hpcpanda.dispatcher.limits import StrictJsonRoute
from hpcpanda.dispatcher.polling import acquire_or_wait
from hpcpanda.dispatcher.usecases.edges import list_edges, register_edge
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.domain.exchange import (
    MAX_EDGES,
    Capacity,
    EdgeInfo,
    EdgeRegistration,
    Grants,
    SyncReply,
    SyncRequest,
)

router = APIRouter(prefix="/v1/edges", tags=["edges"], route_class=StrictJsonRoute)

EdgeName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


@router.get("")
async def list_all(
    _: EdgesRead,
    context: ContextDep,
    after: Annotated[str, Query(max_length=128)] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_EDGES)] = MAX_EDGES,
) -> tuple[EdgeInfo, ...]:
    """List edges that have registered, by name; those behind ``after``, if that is given."""
    return await list_edges(
        context.store.reading(), after=after, limit=limit, terms=context.terms, now=context.clock()
    )


@router.put("/{name}")
async def register(
    name: EdgeName, registration: EdgeRegistration, caller: Edge, context: ContextDep
) -> EdgeInfo:
    """Register an edge, or tell that it has started again."""
    caller.require_edge(name)
    return await register_edge(
        context.store.writing(),
        name=name,
        registration=registration,
        terms=context.terms,
        now=context.clock(),
    )


@router.post("/{name}/leases")
async def acquire(
    name: EdgeName, capacity: Capacity, caller: Edge, context: ContextDep, request: Request
) -> Grants:
    """Ask for work; waits for it as long as the caller allows."""
    caller.require_edge(name)
    return await acquire_or_wait(context, edge=name, capacity=capacity, gone=request.is_disconnected)


@router.post("/{name}/sync")
async def sync(name: EdgeName, request: SyncRequest, caller: Edge, context: ContextDep) -> SyncReply:
    """Renew, commit, return and report; also the edge's heartbeat."""
    caller.require_edge(name)
    reply, freed = await sync_edge(
        context.store.writing(), edge=name, request=request, terms=context.terms, now=context.clock()
    )
    if freed:
        context.bell.ring()
    return reply
