"""One start of a pack: what its MPI ranks read when they begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hpcpanda.allocation.plan import Pack
from hpcpanda.domain.site import Site
from hpcpanda.events.adapter import Adapter


@dataclass(frozen=True, slots=True, kw_only=True)
class PackRun:
    """A pack, started for the ``incarnation``-th time, with what is left of its work."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    allocation_id: str
    spool: str
    site: Site
    pack: Pack
    incarnation: int
    deadline: float
    """Unix seconds at which all ranges must have ended: however long the ranks take to start, it stays."""


PACK_RUN: Adapter[PackRun] = Adapter(PackRun)
