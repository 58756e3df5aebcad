"""Why tasks are where they are, as each edge last said, in the database."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.store.codec import dump_why, load_why
from hpcpanda.dispatcher.store.tables import reasons
from hpcpanda.domain.site_report import TaskReason
from hpcpanda.domain.task_views import EdgeReason

_SILENT = delete(reasons).where(reasons.c.edge == bindparam("this"))
_SAID = insert(reasons)


class Reasons:
    """What edges say of tasks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def replace(self, edge: str, said: Collection[TaskReason], now: float) -> None:
        """Put what an edge says in the place of what it said before."""
        await self._connection.execute(_SILENT, {"this": edge})
        rows = [
            {"edge": edge, "task_id": reason.task_id, "why": dump_why(reason.why), "reported": now}
            for reason in said
        ]
        if rows:
            await self._connection.execute(_SAID, rows)

    async def of_task(self, task_id: int, *, since: float, now: float) -> tuple[EdgeReason, ...]:
        """What edges say of a task, by name, as far as it was said after ``since``."""
        t = reasons.c
        query = (
            select(t.edge, t.why, t.reported)
            .where(t.task_id == task_id, t.reported >= since)
            .order_by(t.edge)
        )
        return tuple(
            EdgeReason(edge=edge, why=load_why(text), ago_s=max(0.0, now - reported))
            for edge, text, reported in await self._connection.execute(query)
        )
