"""That a dispatcher is there, in the database."""

from __future__ import annotations

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.service_tables import pulse

AWAY_SECONDS = 30.0
"""No dispatcher counts as having been there when none has noted it for so long."""
_ONLY = 1


class Pulses:
    """The one row that every living dispatcher renews."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def last(self) -> float | None:
        """When a dispatcher last noted that it is there; None when none ever has."""
        query = select(pulse.c.beat).where(pulse.c.row == _ONLY)
        return (await self._connection.execute(query)).scalar_one_or_none()

    async def put(self, now: float) -> None:
        """Note that a dispatcher is there."""
        changed = await self._connection.execute(update(pulse).where(pulse.c.row == _ONLY).values(beat=now))
        if changed.rowcount == 0:
            await self._connection.execute(insert(pulse).values(row=_ONLY, beat=now))
