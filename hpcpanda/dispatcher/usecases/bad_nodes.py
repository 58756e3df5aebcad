"""Nodes of sites on which things fail again and again: what is put down to them, who is told, and how it is lifted."""

from __future__ import annotations

from collections.abc import Mapping

from hpcpanda.brokerage.node_quarantine import NodeFault, barred, lifted, noted
from hpcpanda.brokerage.quarantine import told
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.control import Lifted, Quarantine
from hpcpanda.domain.errors import NotFound
from hpcpanda.domain.failures import NodeQuarantine

MAX_WHY = 200
"""So many characters of each failure are kept."""
MAX_SITES = 1000
"""Most sites listed."""


async def note_bad_nodes(
    uow: UnitOfWork, edge: str, faults: Mapping[tuple[int, str], str], *, now: float
) -> tuple[NodeQuarantine, ...]:
    """Put failures down to nodes of a site.

    Args:
        uow: the transaction, which holds the edge.
        edge: of the site.
        faults: what has happened, by task and node.
        now: Unix seconds.

    Returns:
        The nodes on which nothing is to be started now.
    """
    new = [
        NodeFault(node=node, at=now, task_id=task_id, why=why[:MAX_WHY])
        for (task_id, node), why in faults.items()
    ]
    known = noted(await uow.faults.nodes(edge), new, now=now)
    await uow.faults.put_nodes(edge, known)
    return barred(known, now=now)


async def list_quarantines(uow: UnitOfWork, *, now: float) -> tuple[Quarantine, ...]:
    """What is in quarantine now, sites and nodes, by site: the first ``MAX_SITES`` of them."""
    found: list[Quarantine] = []
    async with uow:
        sites = await uow.faults.troubled(now=now, limit=MAX_SITES)
    for site in sites:
        if site.until > now:
            why = told(site.faults, until=site.until, now=now)
            found.append(Quarantine(edge=site.edge, node=None, until=site.until, why=why))
        found += [
            Quarantine(edge=site.edge, node=one.node, until=one.until, why=one.why)
            for one in barred(site.nodes, now=now)
        ]
    return tuple(found)


async def lift_quarantine(uow: UnitOfWork, *, edge: str, node: str | None = None, now: float) -> Lifted:
    """Use a node again that was in quarantine; without a node, the site and all its nodes. What counted against them is
    forgotten.

    Raises:
        NotFound: no edge of that name has registered, or nothing is known against that node.
    """
    async with uow:
        uow.target = f"edge {edge}" if node is None else f"node {node} of edge {edge}"
        if await uow.edges.get(edge) is None:
            raise NotFound(f"no edge named {edge} has registered")
        known = await uow.faults.nodes(edge)
        if node is not None and node not in {entry.node for entry in known}:
            raise NotFound(f"edge {edge} has no node {node!r} in quarantine")
        await uow.faults.put_nodes(edge, lifted(known, node, now=now))
        if node is None:
            await uow.faults.put(edge, ())
            await uow.faults.bar(edge, 0.0)
    return Lifted(edge=edge, node=node)
