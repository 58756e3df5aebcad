"""What an edge tells brokerage of its site."""

from __future__ import annotations

from hpcpanda_edge.site_news import MAX_WAIT_S, site_report

from hpcpanda.domain.site_report import SiteReport
from hpcpanda.packing.forecast import QueueWait


def wait(median_s: float, seen: int) -> QueueWait:
    return QueueWait(nodes=1, seconds=3600.0, median_s=median_s, p90_s=2 * median_s, seen=seen)


def test_nothing_is_told_of_what_was_only_assumed() -> None:
    """A site without a past is not judged by an assumption."""
    assert site_report([]) is None
    assert site_report([wait(600.0, 0)]) is None


def test_the_wait_of_the_usual_shape_is_told() -> None:
    """What was asked for most often counts, however short others waited."""
    assert site_report([wait(5.0, 2), wait(420.0, 9), wait(1.0, 0)]) == SiteReport(queue_wait_s=420.0)


def test_a_wait_without_end_is_told_as_the_longest_there_is() -> None:
    """The dispatcher refuses no message for it."""
    assert site_report([wait(float("inf"), 1)]) == SiteReport(queue_wait_s=MAX_WAIT_S)
