"""What the routes are given: the parts of one dispatcher, and who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes

from hpcpanda.dispatcher.auth import PUBLIC, Bearers, Principal, Scope
from hpcpanda.dispatcher.bell import Bell
from hpcpanda.dispatcher.clock import Clock
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts of one dispatcher."""

    database: Database
    store: Store
    bearers: Bearers
    terms: Terms
    clock: Clock
    bell: Bell


def _context(request: Request) -> Context:
    context = request.app.state.context
    assert isinstance(context, Context)
    return context


ContextDep = Annotated[Context, Depends(_context)]


async def _anyone(scopes: SecurityScopes) -> None:
    """Let everybody in."""
    assert scopes.scopes == [PUBLIC]


async def _bearer(
    scopes: SecurityScopes,
    request: Request,
    context: ContextDep,
    _shown_in_openapi: Annotated[object, Depends(HTTPBearer(auto_error=False))],
) -> Principal:
    authorization = request.headers.get("authorization")
    principal = await context.bearers.identify(authorization, now=context.clock())
    principal.require(Scope(scopes.scopes[0]))
    return principal


Anyone = Annotated[None, Security(_anyone, scopes=[PUBLIC])]
"""The route needs no token."""
User = Annotated[Principal, Security(_bearer, scopes=[Scope.USER])]
"""The route needs a user's token."""
Edge = Annotated[Principal, Security(_bearer, scopes=[Scope.EDGE])]
"""The route needs an edge's token."""
