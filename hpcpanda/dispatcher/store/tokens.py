"""Bearer tokens in the database: only their digests are kept."""

from __future__ import annotations

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.tables import tokens


class Tokens:
    """Digests of tokens with what they allow."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, digest: str, *, scope: str, name: str, now: float) -> None:
        """Record a token."""
        row = {"digest": digest, "scope": scope, "name": name, "created": now}
        await self._connection.execute(insert(tokens).values(row))

    async def find(self, digest: str) -> tuple[str, str, str] | None:
        """``(digest, scope, name)`` of a token, if it is known."""
        query = select(tokens.c.digest, tokens.c.scope, tokens.c.name).where(tokens.c.digest == digest)
        row = (await self._connection.execute(query)).first()
        return None if row is None else (row.digest, row.scope, row.name)
