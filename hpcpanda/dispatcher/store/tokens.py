"""Bearer tokens in the database: only their digests are kept."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.tables import tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """What is known of a token."""

    digest: str
    kind: str
    name: str
    created: float
    expires: float | None


class Tokens:
    """Digests of tokens with what they allow."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(
        self,
        digest: str,
        *,
        scope: str,
        name: str,
        now: float,
        expires: float | None = None,
        parent: str | None = None,
    ) -> None:
        """Record a token, and in place of which it was given."""
        row = {"digest": digest, "scope": scope, "name": name, "created": now}
        row |= {"expires": expires, "parent": parent}
        await self._connection.execute(insert(tokens).values(row))

    async def find(self, digest: str, *, now: float) -> TokenRecord | None:
        """A token, if it is known and has not ended."""
        alive = or_(tokens.c.expires.is_(None), tokens.c.expires > now)
        query = select(tokens).where(tokens.c.digest == digest, alive)
        row = (await self._connection.execute(query)).first()
        if row is None:
            return None
        return TokenRecord(
            digest=row.digest, kind=row.scope, name=row.name, created=row.created, expires=row.expires
        )

    async def end(self, digest: str, *, at: float) -> None:
        """Let a token end at a time, unless it ends before."""
        later = or_(tokens.c.expires.is_(None), tokens.c.expires > at)
        await self._connection.execute(
            update(tokens).where(tokens.c.digest == digest, later).values(expires=at)
        )

    async def drop_children(self, digest: str) -> None:
        """Forget the tokens that were given in place of a token."""
        await self._connection.execute(delete(tokens).where(tokens.c.parent == digest))

    async def drop_named(self, kind: str, name: str) -> int:
        """Forget all tokens of a user or an edge; gives how many there were."""
        query = delete(tokens).where(tokens.c.scope == kind, tokens.c.name == name)
        return (await self._connection.execute(query)).rowcount

    async def drop_ended(self, *, now: float) -> None:
        """Forget the tokens that have ended."""
        await self._connection.execute(delete(tokens).where(tokens.c.expires <= now))
