"""Allocations that wait in the queue for nothing: their window has passed, or their work is gone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from hpcpanda.domain.states import TaskState
from hpcpanda.domain.why import Why
from hpcpanda.packing.windows import nodes_for
from hpcpanda.planning.actions import CancelAllocation
from hpcpanda.planning.situation import AllocationView, Situation

PATIENCE_S: Final = 60.0
"""A request for a window that has not started after this, and after two looks at the batch system, has missed it:
it was shaped with half of this to spare."""
WINDOW_PASSED: Final = "window-passed"
_AT_WORK: Final = (TaskState.READY, TaskState.RUNNING)


def patience_s(poll_seconds: float) -> float:
    """How long a request for a window may wait for its start."""
    return max(PATIENCE_S, 2 * poll_seconds + PATIENCE_S / 2)


def pointless(s: Situation, fed: Collection[str]) -> Iterator[CancelAllocation]:
    """Queued allocations to be taken back. ``fed``: allocations that are given work in this round."""
    expected = {t.task_id for t in s.tasks if t.state in _AT_WORK and not t.fault}
    for allocation in s.allocations:
        if allocation.running or not allocation.accepts or allocation.allocation_id in fed:
            continue
        if because := _no_work(allocation, expected) or _missed(s, allocation):
            yield CancelAllocation(allocation_id=allocation.allocation_id, because=because)


def _no_work(allocation: AllocationView, expected: Collection[int]) -> Why | None:
    """All that it was to do was done elsewhere, or taken away, and its tasks need no more."""
    for pack in allocation.packs:
        if pack.kind == "merge" or any(p.held or p.task_id in expected for p in pack.parts):
            return None
    return Why(code="no-work", sentence="Nothing is left of the work that it waits to do.")


def _missed(s: Situation, allocation: AllocationView) -> Why | None:
    """It was to fill a window that is gone. Where one is that takes it, it may start yet."""
    if not allocation.in_window or allocation.asked is None or s.windows is None:
        return None
    waited, seconds = s.now - allocation.asked, allocation.seconds_left + s.site.allocation.margin_s
    if s.site.queue.preemptible:
        seconds = 0.0
    if waited <= patience_s(s.site.scheduler.poll_seconds):
        return None
    free = nodes_for(s.windows, s.site.scheduler.queue, seconds)
    if free >= allocation.nodes:
        return None
    text = (
        f"It has waited {waited:.0f} s for a window that has passed; {free} nodes are free for so long now."
    )
    return Why(code=WINDOW_PASSED, sentence=text, numbers={"waited_s": waited, "free_nodes": free})
