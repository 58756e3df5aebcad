"""What is known of the present run of each allocation, in RAM only: it is void as soon as the allocation queues again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.domain.states import AllocationState
from hpcpanda_edge.store import Store

STATUS_STALE_S: Final = 120.0
"""So long a silence of the head means that it has ended, where the batch system cannot be believed at once."""

PartKey = tuple[str, str, int]
"""Allocation, pack and task."""


@dataclass(slots=True)
class PresentRuns:
    """What batch system and heads have said since the run of an allocation began."""

    confirmed: set[str]
    """Allocations that the batch system has said to run, or that ran before this edge began."""
    statuses: dict[str, AllocationStatus] = field(default_factory=dict)
    """What the head of each last said."""
    over: dict[PartKey, float] = field(default_factory=dict)
    """Parts that a head has said to be over, and when it wrote so first."""

    @classmethod
    def after_start(cls, store: Store) -> PresentRuns:
        """What an edge knows that has just begun."""
        running = (r for r in store.allocations.values() if r.state is AllocationState.RUNNING)
        return cls(confirmed={r.allocation_id for r in running})

    def has_run(self, allocation_id: str) -> bool:
        """Whether an allocation that queues ran before. The batch system's word may be older than that of a head which
        has just begun; so what only the head has said must have been silent for a while."""
        return allocation_id in self.confirmed or self.silent(allocation_id)

    def silent(self, allocation_id: str) -> bool:
        """Whether the head of an allocation was heard once, and has said nothing for long."""
        status = self.statuses.get(allocation_id)
        return status is not None and time.time() - status.written > STATUS_STALE_S

    def forget(self, allocation_id: str) -> None:
        """The run of an allocation is over: what its head has said is not said of the next."""
        self.confirmed.discard(allocation_id)
        self.statuses.pop(allocation_id, None)
        for key in [key for key in self.over if key[0] == allocation_id]:
            del self.over[key]
