"""Event ranges and interval sets: how a billion events are accounted in a few numbers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import MAX_EVENTS


@dataclass(frozen=True, slots=True, order=True)
class EventRange:
    """A contiguous slice ``[first, last)`` of a task's event space; never empty."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.last <= MAX_EVENTS:
            raise InvalidValue(
                "event range",
                f"[{self.first}, {self.last}) must satisfy 0 <= first < last <= {MAX_EVENTS}",
            )

    def __len__(self) -> int:
        return self.last - self.first

    def __str__(self) -> str:
        return f"[{self.first}, {self.last})"

    def halves(self) -> tuple[EventRange, ...]:
        """The range cut in the middle; itself alone when it is one event."""
        if len(self) == 1:
            return (self,)
        middle = (self.first + self.last) // 2
        return EventRange(self.first, middle), EventRange(middle, self.last)


@dataclass(frozen=True, slots=True)
class IntervalSet:
    """A sorted set of disjoint, non-adjacent event ranges. Immutable.

    ``bounds`` is the flat, strictly increasing sequence ``first0, last0, first1, last1, ...``; an
    event is in the set when an odd number of bounds are at or below it. A set of one range and an
    operation with one range cost O(log n) comparisons and one copy; set operations cost
    O(fragments of the smaller) such steps, or one sweep.
    """

    bounds: tuple[int, ...] = ()

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        bounds = self.bounds
        if len(bounds) % 2:
            raise InvalidValue("bounds", "must hold pairs of first and last")
        if bounds and not (bounds[0] >= 0 and bounds[-1] <= MAX_EVENTS):
            raise InvalidValue("bounds", f"events must lie in 0..{MAX_EVENTS}")
        if any(a >= b for a, b in pairwise(bounds)):
            raise InvalidValue(
                "bounds", "must be strictly increasing: ranges sorted, disjoint and not touching"
            )

    @classmethod
    def _trusted(cls, bounds: tuple[int, ...]) -> IntervalSet:
        """Skip validation for bounds that are right by construction."""
        new = object.__new__(cls)
        object.__setattr__(new, "bounds", bounds)
        return new

    @classmethod
    def span(cls, first: int, last: int) -> IntervalSet:
        """The set of ``[first, last)``; empty when ``first == last``."""
        if first == last:
            return EMPTY
        return cls((first, last))

    @classmethod
    def of(cls, ranges: Iterable[EventRange]) -> IntervalSet:
        """The union of the ranges, in any order; touching and overlapping ones are joined."""
        bounds: list[int] = []
        for r in sorted(ranges):
            if bounds and r.first <= bounds[-1]:
                bounds[-1] = max(bounds[-1], r.last)
            else:
                bounds += (r.first, r.last)
        return cls._trusted(tuple(bounds))

    def __len__(self) -> int:
        """Number of events (not of fragments)."""
        return sum(self.bounds[1::2]) - sum(self.bounds[::2])

    def __bool__(self) -> bool:
        return bool(self.bounds)

    def ranges(self) -> Iterator[EventRange]:
        """The disjoint ranges, in order. (Not ``__iter__``: the length counts events, and ``list`` would
        reserve memory for as many.)"""
        it = iter(self.bounds)
        return (EventRange(first, last) for first, last in zip(it, it, strict=True))

    def __contains__(self, event: object) -> bool:
        return isinstance(event, int) and bisect_right(self.bounds, event) % 2 == 1

    def __str__(self) -> str:
        return " ".join(map(str, self.ranges())) or "none"

    @property
    def fragments(self) -> int:
        """Number of disjoint ranges."""
        return len(self.bounds) // 2

    def covers(self, first: int, last: int) -> bool:
        """Whether every event of ``[first, last)`` is in the set."""
        i = bisect_right(self.bounds, first)
        return i % 2 == 1 and last <= self.bounds[i]

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any event of ``[first, last)`` is in the set."""
        i = bisect_right(self.bounds, first)
        return i % 2 == 1 or (i < len(self.bounds) and self.bounds[i] < last)

    def add(self, first: int, last: int) -> IntervalSet:
        """This set and ``[first, last)``."""
        b = self.bounds
        i, j = bisect_left(b, first), bisect_right(b, last)
        head = b[:i] if i % 2 else (*b[:i], first)
        tail = b[j:] if j % 2 else (last, *b[j:])
        return self._trusted(head + tail)

    def remove(self, first: int, last: int) -> IntervalSet:
        """This set without ``[first, last)``."""
        b = self.bounds
        i, j = bisect_left(b, first), bisect_right(b, last)
        head = (*b[:i], first) if i % 2 else b[:i]
        tail = (last, *b[j:]) if j % 2 else b[j:]
        return self._trusted(head + tail)

    def __or__(self, other: IntervalSet) -> IntervalSet:
        small, large = self._by_size(other)
        if not small.bounds:
            return large
        if len(small.bounds) > 16:
            return self._sweep(other, lambda a, b: a or b)
        for first, last in zip(small.bounds[::2], small.bounds[1::2], strict=True):
            large = large.add(first, last)
        return large

    def __sub__(self, other: IntervalSet) -> IntervalSet:
        if not self.bounds:
            return self
        if len(other.bounds) > 16:
            return self._sweep(other, lambda a, b: a and not b)
        result = self
        for first, last in zip(other.bounds[::2], other.bounds[1::2], strict=True):
            result = result.remove(first, last)
        return result

    def __and__(self, other: IntervalSet) -> IntervalSet:
        small, large = self._by_size(other)
        if not small.bounds:
            return small
        bounds: list[int] = []
        b = large.bounds
        for first, last in zip(small.bounds[::2], small.bounds[1::2], strict=True):
            i, j = bisect_right(b, first), bisect_left(b, last)
            if i % 2:
                bounds.append(first)
            bounds += b[i:j]
            if j % 2:
                bounds.append(last)
        return self._trusted(tuple(bounds))

    def _by_size(self, other: IntervalSet) -> tuple[IntervalSet, IntervalSet]:
        """Both, the one of fewer fragments first."""
        return (self, other) if len(self.bounds) <= len(other.bounds) else (other, self)

    def _sweep(self, other: IntervalSet, keep: Callable[[bool, bool], bool]) -> IntervalSet:
        """Walk both boundary lists once, keeping events for which ``keep(in self, in other)``."""
        a, b = self.bounds, other.bounds
        i = j = 0
        bounds: list[int] = []
        inside = False
        while i < len(a) or j < len(b):
            at = min(a[i] if i < len(a) else MAX_EVENTS + 1, b[j] if j < len(b) else MAX_EVENTS + 1)
            i += i < len(a) and a[i] == at
            j += j < len(b) and b[j] == at
            if keep(i % 2 == 1, j % 2 == 1) != inside:
                inside = not inside
                bounds.append(at)
        return self._trusted(tuple(bounds))

    def issubset(self, other: IntervalSet) -> bool:
        """Whether every event of this set is in ``other``."""
        return not self - other

    def take(self, count: int) -> tuple[IntervalSet, IntervalSet]:
        """Split off the first ``count`` events: ``(taken, rest)``; fewer when there are fewer."""
        if count <= 0:
            return EMPTY, self
        b = self.bounds
        left = count
        for k in range(0, len(b), 2):
            size = b[k + 1] - b[k]
            if size > left:
                cut = b[k] + left
                taken = (*b[:k], b[k], cut) if left else b[:k]
                return self._trusted(taken), self._trusted((cut, *b[k + 1 :]))
            left -= size
            if left == 0:
                return self._trusted(b[: k + 2]), self._trusted(b[k + 2 :])
        return self, EMPTY


EMPTY = IntervalSet()
"""The set of no events."""
