"""Tasks that have changed, as change streams tell of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import is_id
from hpcpanda.dispatcher.store.identity import in_sight
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.domain.changes import Change
from hpcpanda.domain.states import TaskState

_COLUMNS = tuple(tasks.c[name] for name in ("task_id", "state", "total", "ready", "leased", "done", "failed"))


class Changes:
    """State and counts of tasks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, task_ids: Collection[int]) -> dict[int, Change]:
        """Those of these tasks that exist and were not put away."""
        found: dict[int, Change] = {}
        for portion in chunks(sorted(filter(is_id, task_ids))):
            found |= await self._read(select(*_COLUMNS).where(tasks.c.task_id.in_(portion)))
        return found

    async def seen(self, task_ids: Collection[int], sight: Sight | None) -> set[int]:
        """Those of these tasks that somebody sees."""
        found: set[int] = set()
        for portion in chunks(sorted(filter(is_id, task_ids))):
            seen = in_sight(tasks.c.task_id, tasks.c.owner, sight)
            query = select(tasks.c.task_id).where(tasks.c.task_id.in_(portion), *seen)
            found |= set((await self._connection.execute(query)).scalars())
        return found

    async def since(self, when: float, sight: Sight | None, *, limit: int) -> dict[int, Change]:
        """Tasks that somebody sees and that have changed since, the newest first, at most so many."""
        seen = in_sight(tasks.c.task_id, tasks.c.owner, sight)
        # Every state is named, so that the index over state and time serves.
        query = select(*_COLUMNS).where(tasks.c.state.in_(list(TaskState)), tasks.c.updated >= when, *seen)
        return await self._read(query.order_by(tasks.c.updated.desc()).limit(limit))

    async def _read(self, query: Select[*tuple[Any, ...]]) -> dict[int, Change]:
        rows = (await self._connection.execute(query)).mappings()
        return {row["task_id"]: Change(**{**row, "state": TaskState(row["state"])}) for row in rows}
