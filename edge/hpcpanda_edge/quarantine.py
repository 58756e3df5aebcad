"""Nodes of the site on which the dispatcher wants nothing to be started: kept in the spool folder, for the packs to see."""

from __future__ import annotations

from typing import Final

import structlog

from hpcpanda.allocation.node_quarantine import QUARANTINED, QuarantinedNodes, quarantined
from hpcpanda.allocation.spool import Spool, write_message
from hpcpanda.domain.failures import NodeQuarantine
from hpcpanda.domain.site import Site

MOST_AVOIDED: Final = 4
"""The batch system is asked to leave out at most one of so many nodes."""

_log = structlog.get_logger("hpcpanda.edge")


class QuarantineKeeper:
    """What the dispatcher last said of the site's nodes."""

    def __init__(self, spool: Spool, site: Site) -> None:
        self._spool = spool
        self._nodes = site.nodes.count
        self._kept: tuple[NodeQuarantine, ...] | None = None

    def keep(self, nodes: tuple[NodeQuarantine, ...] | None) -> None:
        """Keep what the dispatcher has said; None says nothing. What a full disk refuses is kept the next time it is said."""
        if nodes is None or nodes == self._kept or (not nodes and not self._spool.quarantine.exists()):
            return
        try:
            write_message(self._spool.quarantine, QUARANTINED, QuarantinedNodes(nodes=nodes))
        except OSError as problem:
            _log.warning("quarantine-not-kept", error=str(problem))
            return
        self._kept = nodes
        _log.info("nodes-in-quarantine", nodes=[one.node for one in nodes])

    def avoided(self, nodes: int, now: float) -> tuple[str, ...]:
        """Nodes without which an allocation of so many is to be asked for, at a time in Unix seconds: none when they are too
        many to be left out."""
        names = tuple(one.node for one in quarantined(self._spool, now))
        most = min(self._nodes // MOST_AVOIDED, self._nodes - nodes)
        return names if len(names) <= most else ()
