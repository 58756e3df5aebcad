"""Edges: their registration, and whether a caller is the one registered."""

from __future__ import annotations

from hpcpanda.dispatcher.store.sites import EdgeRecord
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.expiry import end_unknown
from hpcpanda.domain.errors import EdgeNameTaken, NotFound
from hpcpanda.domain.exchange import EdgeInfo, EdgeRegistration


async def register_edge(
    uow: UnitOfWork, *, name: str, registration: EdgeRegistration, terms: Terms, now: float
) -> EdgeInfo:
    """Let an edge introduce itself, again after every start.

    Raises:
        EdgeNameTaken: another instance under this name has been heard of lately.
    """
    async with uow:
        known = await uow.edges.get(name)
        if known is not None and known.instance != registration.instance and _alive(known, terms, now):
            raise EdgeNameTaken(
                f"edge {name!r} is instance {known.instance!r}, heard of {now - known.last_seen:.0f} s ago; "
                f"stop that one, or wait until it has been silent for {terms.edge_alive_seconds:.0f} s"
            )
        record = EdgeRecord(
            name=name,
            instance=registration.instance,
            cores=registration.cores,
            version=registration.version,
            last_seen=now,
        )
        await uow.edges.put(record)
        await uow.sites.register(name, registration.architecture, registration.tags)
        if registration.held is not None:
            await end_unknown(uow, edge=name, held=frozenset(registration.held), now=now)
    return _info(record, terms, now)


async def list_edges(
    uow: UnitOfWork, *, after: str, limit: int, terms: Terms, now: float
) -> tuple[EdgeInfo, ...]:
    """Edges that have ever registered, by name, those behind ``after``."""
    async with uow:
        found = await uow.edges.page(after=after, limit=limit)
    return tuple(_info(record, terms, now) for record in found)


async def recognise(uow: UnitOfWork, *, name: str, instance: str) -> EdgeRecord:
    """The registered edge, if it is the instance that is calling.

    Raises:
        NotFound: no edge has registered under this name.
        EdgeNameTaken: another instance has.
    """
    known = await uow.edges.get(name)
    if known is None:
        raise NotFound(f"edge {name!r} is not registered; register it first")
    if known.instance != instance:
        raise EdgeNameTaken(f"edge {name!r} is now instance {known.instance!r}; this one has lost the name")
    return known


def _alive(record: EdgeRecord, terms: Terms, now: float) -> bool:
    return now - record.last_seen < terms.edge_alive_seconds


def _info(record: EdgeRecord, terms: Terms, now: float) -> EdgeInfo:
    return EdgeInfo(
        name=record.name,
        instance=record.instance,
        cores=record.cores,
        version=record.version,
        last_seen=record.last_seen,
        alive=_alive(record, terms, now),
        lease_seconds=terms.lease_seconds,
    )
