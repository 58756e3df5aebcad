"""Sites taken off tasks, and events that were given another chance, in the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter
from sqlalchemy import RowMapping, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.brokerage.node_quarantine import KnownNode
from hpcpanda.brokerage.quarantine import SiteFault
from hpcpanda.dispatcher.store.brokerage_tables import sites
from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import dump_why, load_why
from hpcpanda.dispatcher.store.control_tables import fences, tried_again
from hpcpanda.dispatcher.store.upsert import upsert
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.failures import FailureStep
from hpcpanda.domain.why import Why

History = tuple[FailureStep, ...]
_HISTORY: TypeAdapter[History] = TypeAdapter(History)
_FAULTS: TypeAdapter[tuple[SiteFault, ...]] = TypeAdapter(tuple[SiteFault, ...])
_NODES: TypeAdapter[tuple[KnownNode, ...]] = TypeAdapter(tuple[KnownNode, ...])


def dump_history(history: History) -> str:
    """Failures of one event as JSON."""
    return _HISTORY.dump_json(history).decode()


def load_history(text: str | None) -> History:
    """Inverse of :func:`dump_history`; nothing for nothing.

    Raises:
        CorruptData: the text is no history.
    """
    try:
        return () if text is None else _HISTORY.validate_json(text)
    except ValueError as error:
        raise CorruptData(f"stored failures are damaged: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A site that is given nothing of a task for a while."""

    task_id: int
    edge: str
    first_epoch: int
    """Nothing that it has under lower epochs is merged."""
    until: float
    """Unix seconds."""
    why: Why

    def told(self, now: float) -> Why:
        """Why the site is given nothing, and for how long."""
        left = max(0.0, self.until - now)
        sentence = f"It is given nothing of the task for {left / 60:.0f} min more. {self.why.sentence}"
        return Why(code=self.why.code, sentence=sentence, numbers={"left_s": left})


class Fences:
    """Sites taken off tasks. Whoever adds one marks the task's account as ``fenced``."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def put(self, fence: Fence) -> None:
        """Take a site off a task; in the place of what was said before of the two."""
        row = {"task_id": fence.task_id, "edge": fence.edge, "first_epoch": fence.first_epoch}
        row |= {"until": fence.until, "why": dump_why(fence.why)}
        await upsert(self._connection, fences, [row], changes=("first_epoch", "until", "why"))

    async def of_task(self, task_id: int) -> list[Fence]:
        """Sites ever taken off a task, by name."""
        query = select(fences).where(fences.c.task_id == task_id).order_by(fences.c.edge)
        return [_fence(row) for row in (await self._connection.execute(query)).mappings()]

    async def of_edge(self, edge: str, task_ids: Collection[int]) -> dict[int, Fence]:
        """Those of tasks against one site."""
        found: dict[int, Fence] = {}
        for portion in chunks(sorted(task_ids)):
            query = select(fences).where(fences.c.edge == edge, fences.c.task_id.in_(portion))
            for row in (await self._connection.execute(query)).mappings():
                found[row["task_id"]] = _fence(row)
        return found

    async def clear(self, task_id: int) -> None:
        """Every site may have the task again."""
        await self._connection.execute(delete(fences).where(fences.c.task_id == task_id))


class TriedAgain:
    """Events that have failed and were given another chance."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, task_id: int, events: Collection[int]) -> dict[int, History]:
        """What is known of those events that have failed before."""
        t, found = tried_again.c, {}
        for portion in chunks(sorted(events)):
            query = select(t.event, t.history).where(t.task_id == task_id, t.event.in_(portion))
            for event, text in await self._connection.execute(query):
                found[event] = load_history(text)
        return found

    async def count(self, task_id: int) -> int:
        """How many events of a task have ever been given another chance, since its try began."""
        query = select(func.count()).where(tried_again.c.task_id == task_id)
        return (await self._connection.execute(query)).scalar_one()

    async def put(self, task_id: int, histories: Mapping[int, History]) -> None:
        """Write down what has become of events."""
        rows = [{"task_id": task_id, "event": e, "history": dump_history(h)} for e, h in histories.items()]
        await upsert(self._connection, tried_again, rows, changes=("history",))

    async def clear(self, task_id: int) -> None:
        """Forget all of a task."""
        await self._connection.execute(delete(tried_again).where(tried_again.c.task_id == task_id))


@dataclass(frozen=True, slots=True, kw_only=True)
class TroubledSite:
    """A site with failures that were put down to it, or to nodes of it."""

    edge: str
    until: float
    """It is given nothing before; Unix seconds."""
    faults: tuple[SiteFault, ...]
    nodes: tuple[KnownNode, ...]


class SiteFaults:
    """Failures that were put down to sites, and to nodes of theirs."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def of(self, edge: str) -> tuple[SiteFault, ...]:
        """The last faults of a site, first to last."""
        text = (await self._connection.execute(select(sites.c.faults).where(sites.c.edge == edge))).scalar()
        return _load_faults(text, edge)

    async def put(self, edge: str, faults: tuple[SiteFault, ...]) -> None:
        """Write what counts against a site."""
        text = _FAULTS.dump_json(faults).decode() if faults else None
        await self._connection.execute(update(sites).where(sites.c.edge == edge).values(faults=text))

    async def bar(self, edge: str, until: float) -> bool:
        """Give a site nothing until then, Unix seconds; gives whether there is such a site."""
        statement = update(sites).where(sites.c.edge == edge).values(quarantined_until=until)
        return (await self._connection.execute(statement)).rowcount > 0

    async def nodes(self, edge: str) -> tuple[KnownNode, ...]:
        """The nodes of a site to which failures were put down, by name."""
        return load_nodes(
            (await self._connection.execute(select(sites.c.nodes).where(sites.c.edge == edge))).scalar()
        )

    async def note_wait(self, edge: str, wait_s: float) -> tuple[KnownNode, ...]:
        """Note how long allocations wait at a site; gives what :meth:`nodes` gives, in the same statement: an edge says the
        former every few seconds, and is told the latter."""
        statement = update(sites).where(sites.c.edge == edge).values(queue_wait_s=wait_s)
        return load_nodes((await self._connection.execute(statement.returning(sites.c.nodes))).scalar())

    async def put_nodes(self, edge: str, known: tuple[KnownNode, ...]) -> None:
        """Write what is known of a site's nodes."""
        text = _NODES.dump_json(known).decode() if known else None
        await self._connection.execute(update(sites).where(sites.c.edge == edge).values(nodes=text))

    async def troubled(self, *, now: float, limit: int) -> list[TroubledSite]:
        """Sites that are given nothing now, or of which there are nodes that may not be."""
        t = sites.c
        query = select(t.edge, t.quarantined_until, t.faults, t.nodes).order_by(t.edge).limit(limit)
        query = query.where(or_(t.quarantined_until > now, t.nodes.is_not(None)))
        return [
            TroubledSite(
                edge=row.edge,
                until=row.quarantined_until,
                faults=_load_faults(row.faults, row.edge),
                nodes=load_nodes(row.nodes),
            )
            for row in await self._connection.execute(query)
        ]


def load_nodes(text: str | None) -> tuple[KnownNode, ...]:
    """What is known of a site's nodes, from its column.

    Raises:
        CorruptData: the text is none.
    """
    try:
        return () if text is None else _NODES.validate_json(text)
    except ValueError as error:
        raise CorruptData(f"stored faults of nodes are damaged: {error}") from error


def _load_faults(text: str | None, edge: str) -> tuple[SiteFault, ...]:
    try:
        return () if text is None else _FAULTS.validate_json(text)
    except ValueError as error:
        raise CorruptData(f"stored faults of site {edge} are damaged: {error}") from error


def _fence(row: RowMapping) -> Fence:
    values = {name: row[name] for name in ("task_id", "edge", "first_epoch", "until")}
    return Fence(**values, why=load_why(row["why"]))
