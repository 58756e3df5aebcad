"""What brokerage is told of a site: how long allocations wait there."""

from __future__ import annotations

from collections.abc import Sequence

from hpcpanda.domain.site_report import SiteReport
from hpcpanda.packing.forecast import QueueWait

MAX_WAIT_S = 1e8
"""Longer waits are told as this long."""


def site_report(waits: Sequence[QueueWait]) -> SiteReport | None:
    """What is known of the site, or None while nothing is.

    Of the shapes of allocations that were asked for here, the one asked for most often counts: its median wait.
    """
    known = [wait for wait in waits if wait.seen]
    if not known:
        return None
    usual = max(known, key=lambda wait: wait.seen)
    return SiteReport(queue_wait_s=min(usual.median_s, MAX_WAIT_S))
