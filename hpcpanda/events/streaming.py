"""How events are cut and handed out: range length learnt from observed cost, shares that shrink towards the end.

Guided self-scheduling: every hand-out is a fixed fraction of what is left per core, so that all cores
end together (C. D. Polychronopoulos, D. J. Kuck, IEEE Trans. Comput. C-36, 1425, 1987).
"""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.domain.task import RangePolicy

SHRINK = 2
"""A range is at most this fraction's inverse of what is left per core."""

_MEMORY_S = 20.0
"""Seconds of all cores over which the cost estimate forgets."""

_FIRST_RANGE = 1
_GROWTH = 8


@dataclass(slots=True)
class CostModel:
    """Core-seconds an event, from what was seen: recent work counts most, a prior only until then."""

    prior: float | None = None
    cores: int = 1
    """Cores that what is seen comes from: one slow event on one of many must not decide alone."""
    events: float = 0.0
    seconds: float = 0.0
    largest: int = 0
    """Longest range seen, in events."""

    def observe(self, events: int, seconds: float, longest: int) -> None:
        """Take in finished ranges: their events, their wall seconds, the longest one's events."""
        keep = max(0.0, 1.0 - seconds / (_MEMORY_S * self.cores))
        self.events = self.events * keep + events
        self.seconds = self.seconds * keep + max(seconds, 1e-9 * events)
        self.largest = max(self.largest, longest)

    @property
    def event_seconds(self) -> float | None:
        """Core-seconds an event; the prior before anything was seen; None without one."""
        return self.seconds / self.events if self.events else self.prior

    def range_events(self, policy: RangePolicy, left_per_core: float) -> int:
        """Events the next range should have.

        Args:
            policy: the task's target time and upper limit.
            left_per_core: events still to be done, divided by the number of cores doing them.
        """
        cost = self.event_seconds
        if cost is None:
            length = _FIRST_RANGE
        else:
            length = int(policy.target_seconds / cost)
            if self.events:
                length = min(length, self.largest * _GROWTH)
        length = min(length, int(left_per_core / SHRINK))
        if policy.max_events is not None:
            length = min(length, policy.max_events)
        return max(1, length)


def share(want: int, left: int, ranks: int) -> int:
    """Events to hand to one of ``ranks`` node agents that wants ``want`` of ``left``."""
    if ranks == 1:
        return min(want, left)
    return min(want, max(1, left // (SHRINK * ranks)))
