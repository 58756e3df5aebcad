"""What the host leaves idle: a step function of time, the holes in it, and the truthful backfill windows at an instant."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np

from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.simulate.machines.host_alone import HostSchedule
from hpcpanda.simulate.trace import Floats, HostTrace, Ints

SHORTEST_HOLE_S = 300.0
"""Shorter holes are not worth a batch job."""
_BLOCK = 32
"""Steps that are looked at together, or not at all."""


class Held:
    """Nodes that we hold, by the times until which we may."""

    def __init__(self, until_and_nodes: Iterable[tuple[float, int]] = ()) -> None:
        held = sorted(until_and_nodes)
        self.nodes = sum(nodes for _, nodes in held)
        """All of them, now."""
        self._until = np.array([until for until, _ in held])
        self._left = np.zeros(len(held) + 1, dtype=np.int64)
        self._left[:-1] = np.cumsum([nodes for _, nodes in reversed(held)], dtype=np.int64)[::-1]

    def at(self, times: Floats) -> Ints:
        """Nodes still held at some times, all of them in the future."""
        left: Ints = self._left[np.searchsorted(self._until, times, side="right")]
        return left


NOTHING_HELD = Held()


@dataclass(frozen=True, kw_only=True)
class IdleProfile:
    """Idle nodes of a schedule: ``idle[i]`` from ``times[i]`` to ``times[i + 1]``, the last one for ever."""

    times: Floats
    """Ascending, seconds."""
    idle: Ints

    def at(self, now: float) -> int:
        """Idle nodes at an instant; before the first step those of the first."""
        return int(self.idle[self._step(now)])

    def next_rise(self, now: float) -> float:
        """When nodes become idle next; infinity after the last time."""
        k = bisect_right(self._rises, now)
        return self._rises[k] if k < len(self._rises) else inf

    def fits(self, nodes: int, seconds: float, now: float, held: Held = NOTHING_HELD) -> bool:
        """Whether so many nodes beside those held stay idle for so long."""
        return nodes <= int(self._free(now, seconds, held)[1].min())

    def blocked_until(self, nodes: int, seconds: float, now: float) -> float:
        """When the host lets so many nodes stay idle for so long at the earliest, as far as the steps in that time tell.

        ``now`` when none of them has fewer idle nodes, else the end of the last one that has.
        """
        first = self._step(now)
        last = max(int(self.times.searchsorted(now + seconds, side="left")), first + 1)
        few = (self.idle[first:last] < nodes).nonzero()[0]
        if not len(few):
            return now
        after = first + int(few[-1]) + 1
        return float(self.times[after]) if after < len(self.times) else inf

    def windows_at(
        self, now: float, *, horizon_s: float, held: Held = NOTHING_HELD
    ) -> tuple[BackfillWindow, ...]:
        """The nodes beside those held that stay idle, by how long they do; the longest first.

        Truthful, from the future of the profile. Nodes that stay idle until the horizon or longer are told for the
        horizon. Of the steps before the horizon only blocks are looked at, and those in which a window can end.
        """
        if self.at(now) <= held.nodes:
            return ()
        times, free = self._free(now, horizon_s, held)
        lowest = np.maximum(np.minimum.accumulate(free), 0)
        drops = np.flatnonzero(lowest[1:] < lowest[:-1])
        lengths = [horizon_s, *(times[drops + 1] - now)[::-1].tolist()]
        nodes = [int(lowest[-1]), *(lowest[drops] - lowest[drops + 1])[::-1].tolist()]
        return tuple(
            BackfillWindow(queue=None, nodes=n, seconds=s) for n, s in zip(nodes, lengths, strict=True) if n
        )

    def node_seconds(self, begin: float, end: float) -> float:
        """Idle node-seconds between two times."""
        inside = np.clip(np.append(self.times, inf), begin, end)
        return float(self.idle @ np.diff(inside))

    def _step(self, now: float) -> int:
        """The step that holds at an instant."""
        return max(int(self.times.searchsorted(now, side="right")) - 1, 0)

    def _free(self, now: float, seconds: float, held: Held) -> tuple[Floats, Ints]:
        """Beginnings of the steps from now on, the first one now, and the nodes free in each at its beginning.

        Within a step we only give back, so that its beginning is its least. Steps that cannot be the least so far
        may be left out.
        """
        first = self._step(now)
        last = max(int(self.times.searchsorted(now + seconds, side="left")), first + 1)
        steps = np.arange(first, last) if last - first < 4 * _BLOCK else self._lowest(first, last, held)
        times, idle = self.times[steps], self.idle[steps]
        times[0] = now
        return times, idle - held.at(times) if held.nodes else idle

    def _lowest(self, first: int, last: int, held: Held) -> Ints:
        """Steps among which are all that leave fewer nodes free than every step before them.

        A block of steps is left out whole when even with all that we hold at its beginning it leaves no fewer nodes
        free than the least step of some block before.
        """
        low, high = first // _BLOCK + 1, last // _BLOCK
        least = self._least[low:high]
        idle = self.idle[least]
        at_most = np.minimum.accumulate(idle - held.at(self.times[least]))
        at_least = idle - held.at(self.times[low * _BLOCK : high * _BLOCK : _BLOCK])
        kept = np.flatnonzero(at_least[1:] < at_most[:-1]) + 1
        blocks = np.concatenate(([0], kept)) + low
        inside = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        steps: Ints = np.concatenate((np.arange(first, low * _BLOCK), inside, np.arange(high * _BLOCK, last)))
        return steps

    @cached_property
    def _least(self) -> Ints:
        """The step with the fewest idle nodes of each block of steps; whole blocks only."""
        whole = len(self.idle) // _BLOCK
        places = self.idle[: whole * _BLOCK].reshape(whole, _BLOCK).argmin(axis=1)
        least: Ints = places + np.arange(whole) * _BLOCK
        return least

    @cached_property
    def _rises(self) -> list[float]:
        rises: list[float] = self.times[1:][np.diff(self.idle) > 0].tolist()
        return rises


def idle_profile(trace: HostTrace, schedule: HostSchedule) -> IdleProfile:
    """Idle nodes from time 0 on. Where records overlap beyond the machine's nodes none is idle."""
    ran = ~np.isnan(schedule.start)
    starts, ends, nodes = schedule.start[ran], schedule.end[ran], trace.nodes[ran]
    times, place = np.unique(np.concatenate(([0.0], starts, ends)), return_inverse=True)
    change = np.zeros(len(times), dtype=np.int64)
    np.add.at(change, place[1:], np.concatenate((-nodes, nodes)))
    idle = np.maximum(trace.machine_nodes + np.cumsum(change), 0)
    kept = np.append(True, idle[1:] != idle[:-1])
    return IdleProfile(times=times[kept], idle=idle[kept])


@dataclass(frozen=True, slots=True, kw_only=True)
class Holes:
    """Rectangles of idle nodes and time, one row each."""

    start: Floats
    length: Floats
    """Seconds."""
    width: Ints
    """Nodes."""

    @property
    def node_seconds(self) -> float:
        """Their area."""
        return float(self.length @ self.width)


def holes(profile: IdleProfile, span: tuple[float, float], *, shortest_s: float = SHORTEST_HOLE_S) -> Holes:
    """Cut what is idle in a span into holes, horizontally, and keep those of at least ``shortest_s``.

    Level k is idle over the longest intervals in which at least k nodes are idle; levels that are idle over the same
    interval are one hole. Other cuts of the same idle time may join it into a few more holes that are long enough, so
    that a harvest can exceed this by a little.
    """
    begin, end = span
    first, last = profile.times.searchsorted([begin, end])
    steps = zip(
        [begin, *profile.times[first:last].tolist(), end], _levels(profile, begin, first, last), strict=True
    )
    rows: list[tuple[float, float, int]] = []
    open_since: list[tuple[float, int]] = []  # when the levels up to this number became idle
    level = 0
    for time, idle in steps:
        while level > idle:
            since, _ = open_since[-1]
            below = open_since[-2][1] if len(open_since) > 1 else 0
            if time - since >= shortest_s:
                rows.append((since, time - since, level - max(below, idle)))
            level = max(below, idle)
            open_since.pop()
            if level > below:
                open_since.append((since, level))
        if idle > level:
            open_since.append((time, idle))
            level = idle
    rows.sort()
    columns = np.array(rows).reshape(-1, 3)
    return Holes(start=columns[:, 0], length=columns[:, 1], width=columns[:, 2].astype(np.int64))


def _levels(profile: IdleProfile, begin: float, first: int, last: int) -> list[int]:
    """Idle nodes at the beginning, after each step, and none at the end."""
    return [profile.at(begin), *profile.idle[first:last].tolist(), 0]
