"""File names of journals: which pack wrote it, in which incarnation, on which rank."""

from __future__ import annotations

import re
from dataclasses import dataclass

_JOURNAL = re.compile(r"([^-]+)-([^-]+)-i(\d+)-r(\d+)\.journal")


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalName:
    """What the file name of a journal says."""

    allocation_id: str
    pack_id: str
    incarnation: int
    rank: int

    @classmethod
    def parse(cls, name: str) -> JournalName | None:
        """Take a file name apart; None when it is not that of a journal."""
        match = _JOURNAL.fullmatch(name)
        if match is None:
            return None
        allocation_id, pack_id, incarnation, rank = match.groups()
        return cls(allocation_id=allocation_id, pack_id=pack_id, incarnation=int(incarnation), rank=int(rank))

    @property
    def holder(self) -> str:
        """The name of its pack in the ledgers, see :meth:`~hpcpanda_edge.records.AllocationRecord.holder`."""
        return f"{self.allocation_id}-{self.pack_id}"
