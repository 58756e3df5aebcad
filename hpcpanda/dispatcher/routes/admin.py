"""Routes for those who run the dispatcher: the audit log, and taking tokens back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from hpcpanda.dispatcher.context import Admin, ContextDep
from hpcpanda.dispatcher.identity.scopes import TokenKind
from hpcpanda.dispatcher.limits import StrictJsonRoute
from hpcpanda.dispatcher.store.codec import MAX_ID
from hpcpanda.dispatcher.usecases.bad_nodes import lift_quarantine, list_quarantines
from hpcpanda.dispatcher.usecases.tokens import read_audit, revoke_tokens
from hpcpanda.domain.control import Lifted, Quarantine
from hpcpanda.domain.failures import MAX_NODE
from hpcpanda.domain.identity import AuditPage, Revoked

router = APIRouter(prefix="/v1/admin", tags=["administration"], route_class=StrictJsonRoute)

Name = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]


@router.get("/audit")
async def audit(
    _: Admin,
    context: ContextDep,
    who: Annotated[str | None, Query(max_length=160)] = None,
    before: Annotated[int | None, Query(ge=0, le=MAX_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """Tell who did what, newest first."""
    return await read_audit(context.store.reading(), who=who, before=before, limit=limit)


@router.get("/quarantine")
async def quarantines(_: Admin, context: ContextDep) -> tuple[Quarantine, ...]:
    """List the sites and nodes that are given nothing now, and why."""
    return await list_quarantines(context.store.reading(), now=context.clock())


@router.delete("/quarantine/{edge}")
async def lift(
    edge: Name,
    _: Admin,
    context: ContextDep,
    node: Annotated[str | None, Query(min_length=1, max_length=MAX_NODE)] = None,
) -> Lifted:
    """Give a site work again that was given none since too much failed by its own fault, and use all its nodes again; or
    use one node again."""
    lifted = await lift_quarantine(context.store.writing(), edge=edge, node=node, now=context.clock())
    context.bell.ring()
    return lifted


@router.delete("/tokens/{kind}/{name}")
async def revoke(kind: TokenKind, name: Name, _: Admin, context: ContextDep) -> Revoked:
    """Take back all tokens of a user or an edge; other replicas may know them for a minute more."""
    revoked = await revoke_tokens(context.store.writing(), kind=kind, name=name)
    context.identity.bearers.forget()
    return revoked
