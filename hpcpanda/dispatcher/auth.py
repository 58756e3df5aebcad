"""Bearer tokens: what they allow, and who their bearer is."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum

from hpcpanda.dispatcher.store.unit import Store, UnitOfWork
from hpcpanda.domain.errors import Forbidden, Unauthenticated


class Scope(StrEnum):
    """What a token allows."""

    USER = "user"
    """Submit, see and cancel tasks."""
    EDGE = "edge"
    """Act as one edge."""


KNOWN_SECONDS = 60.0
"""How long a token that was looked up is taken as known."""
MAX_KNOWN = 10_000
"""Most tokens remembered."""
PUBLIC = "public"
"""Scope of the routes that need no token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who is calling."""

    scope: Scope
    name: str
    """The user, or the edge."""

    def require(self, scope: Scope) -> None:
        """Raise Forbidden when the token is for something else."""
        if self.scope is not scope:
            raise Forbidden(f"this needs a token of scope {scope}; the one sent has scope {self.scope}")

    def require_edge(self, name: str) -> None:
        """Raise Forbidden when the token is another edge's."""
        self.require(Scope.EDGE)
        if self.name != name:
            raise Forbidden(f"this token is for edge {self.name!r}, not for {name!r}")


async def issue_token(uow: UnitOfWork, *, scope: Scope, name: str, now: float) -> str:
    """Make a token and record its digest; the token itself is kept nowhere."""
    token = f"hpcpanda-{scope}-{secrets.token_urlsafe(32)}"
    async with uow:
        await uow.tokens.add(_digest(token), scope=scope, name=name, now=now)
    return token


class Bearers:
    """Knows the bearers of tokens; remembers each for a while, so that most requests need no look-up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[Principal, float]] = {}

    async def identify(self, authorization: str | None, *, now: float) -> Principal:
        """The bearer of the token in an ``Authorization`` header.

        Raises:
            Unauthenticated: there is no token, or it is unknown.
        """
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise Unauthenticated("send 'Authorization: Bearer <token>' with a token of this dispatcher")
        digest = _digest(token.strip())
        principal, until = self._known.get(digest, (None, 0.0))
        if principal is None or until < now:
            principal = await self._look_up(digest)
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[digest] = (principal, now + KNOWN_SECONDS)
        return principal

    async def _look_up(self, digest: str) -> Principal:
        async with self._store.reading() as uow:
            found = await uow.tokens.find(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            raise Unauthenticated("the token is not one of this dispatcher's")
        return Principal(scope=Scope(found[1]), name=found[2])


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
