"""When a node of a site is given nothing for a while, since things fail on it again and again. Pure.

A payload may say whatever it likes, also that its node is broken. So a node is barred only by several tasks, of one site
only a few are at a time, and each for a bounded time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final

from hpcpanda.domain.failures import NodeQuarantine

WITHIN_S: Final = 3600.0
"""Faults of the last hour count."""
FAULTS: Final = 3
TASKS: Final = 2
"""So many faults of so many tasks bar a node: no task alone can."""
BARRED_S: Final = 3600.0
"""So long nothing is started on it."""
MAX_BARRED: Final = 20
"""Most nodes of a site that are barred at a time."""
MAX_KNOWN: Final = 50
"""Most nodes of a site of which faults are kept,"""
KEPT: Final = 6
"""and most faults of each: the last."""
MAX_WHY: Final = 300
"""Longest reason, characters."""
_NODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")
"""Names of hosts, and those that batch systems give to nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFault:
    """One failure that was put down to a node; many events of a task in one message are one."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    node: str
    at: float
    """Unix seconds."""
    task_id: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownNode:
    """A node to which failures were put down."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    node: str
    faults: tuple[NodeFault, ...] = ()
    """The last of them, first to last."""
    until: float = 0.0
    """Nothing is started on it before; Unix seconds."""

    def recent(self, now: float) -> tuple[NodeFault, ...]:
        """The faults that still count."""
        return tuple(fault for fault in self.faults if fault.at > now - WITHIN_S)[-KEPT:]


def is_node(name: str) -> bool:
    """Whether this may be the name of a node."""
    return _NODE.fullmatch(name) is not None


def noted(known: Sequence[KnownNode], faults: Sequence[NodeFault], *, now: float) -> tuple[KnownNode, ...]:
    """What is known of a site's nodes after more faults; what does not count any more is forgotten."""
    nodes = {entry.node: entry for entry in _counting(known, now)}
    for fault in faults:
        entry = nodes.pop(fault.node, KnownNode(node=fault.node))
        entry = replace(entry, faults=(*entry.faults, fault)[-KEPT:])
        crowded = sum(other.until > now for other in nodes.values()) >= MAX_BARRED
        if _is_bad(entry) and not crowded:
            entry = replace(entry, until=now + BARRED_S)
        nodes[fault.node] = entry
    latest = sorted(nodes.values(), key=lambda e: (e.until > now, e.faults[-1].at if e.faults else 0.0))
    return tuple(sorted(latest[-MAX_KNOWN:], key=lambda e: e.node))


def lifted(known: Sequence[KnownNode], node: str | None, *, now: float) -> tuple[KnownNode, ...]:
    """What is known when one node, or all of them, may be used again: nothing that was counted counts."""
    return tuple(e for e in _counting(known, now) if node is not None and e.node != node)


def barred(known: Sequence[KnownNode], *, now: float) -> tuple[NodeQuarantine, ...]:
    """The nodes on which nothing is started now, and why."""
    return tuple(
        NodeQuarantine(node=entry.node, until=entry.until, why=_told(entry))
        for entry in known
        if entry.until > now
    )


def _counting(known: Sequence[KnownNode], now: float) -> list[KnownNode]:
    """Those of which something counts; of one that is barred the faults are kept to be told."""
    kept = [e if e.until > now else replace(e, faults=e.recent(now), until=0.0) for e in known]
    return [entry for entry in kept if entry.faults]


def _is_bad(entry: KnownNode) -> bool:
    return len(entry.faults) >= FAULTS and len({fault.task_id for fault in entry.faults}) >= TASKS


def _told(entry: KnownNode) -> str:
    tasks = len({fault.task_id for fault in entry.faults})
    last = entry.faults[-1].why
    return f"The last {len(entry.faults)} failures there, in {tasks} tasks, were its own: {last}"[:MAX_WHY]
