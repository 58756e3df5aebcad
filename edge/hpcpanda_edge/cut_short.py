"""Runs of allocations that the batch system has cut short: the same judgement for what is learnt and what is charged."""

from __future__ import annotations

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.domain.site import Site
from hpcpanda_edge.records import AllocationRecord


def cut_short(record: AllocationRecord, status: AllocationStatus | None, site: Site, *, until: float) -> bool:
    """Whether a run ended long before its walltime, neither by itself nor by order of this edge: it was preempted, or has
    lost a node.

    Args:
        record: the allocation, with its last run.
        status: what its head last said.
        site: with the times that an end in order may take.
        until: when it was last known to run, or seen to have ended; Unix seconds.
    """
    if record.started is None or record.cancelled or record.draining:
        return False
    if status is not None and status.state == "ended" and not any(p.told_to_end for p in status.packs):
        return False
    in_order_s = 2 * site.allocation.margin_s + site.allocation.grace_s + site.scheduler.poll_seconds
    return record.started + record.walltime_s - until > in_order_s
