"""Nodes on which nothing is to be started: the edge keeps in the spool folder what the dispatcher says of them, and whoever
starts something looks there."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from hpcpanda.allocation.spool import Spool, read_message
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.failures import NodeQuarantine
from hpcpanda.domain.site import Site
from hpcpanda.events.adapter import Adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantinedNodes:
    """All of the site's."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    nodes: tuple[NodeQuarantine, ...]
    format: Literal[1] = 1


QUARANTINED: Adapter[QuarantinedNodes] = Adapter(QuarantinedNodes)


def quarantined(spool: Spool, now: float) -> tuple[NodeQuarantine, ...]:
    """What is kept of nodes that are in quarantine at this time, Unix seconds. A file that is not there, or is damaged, says
    nothing: no work is stopped for that."""
    try:
        kept = read_message(spool.quarantine, QUARANTINED)
    except (OSError, CorruptData):
        return ()
    return tuple(one for one in kept.nodes if one.until > now)


def node_name(environment: Mapping[str, str] = os.environ) -> str:
    """What this node is called: by the batch system, if it says so, else by itself."""
    return environment.get("SLURMD_NODENAME") or socket.gethostname()


def why_kept_out(
    spool: Spool, site: Site, *, nodes: int, now: float, environment: Mapping[str, str] = os.environ
) -> str | None:
    """Why nothing is to be started on this node, if that is so.

    A node stays out only where another of its pack certainly does not: when fewer are in quarantine than the pack has. Each
    can tell so by itself. Nodes that are only pretended have one name, and none of them stays out.

    Args:
        spool: of the site.
        site: its file.
        nodes: of the pack.
        now: Unix seconds.
        environment: of this process.
    """
    if site.nodes.oversubscribe and not environment.get("SLURMD_NODENAME"):
        return None
    known = quarantined(spool, now)
    if len(known) >= nodes:
        return None
    name = node_name(environment)
    return next((f"{name} is in quarantine. {one.why}" for one in known if one.node == name), None)
