"""What a load has done: times of calls, work done, errors; and processor time by process."""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import psutil


def percentile(values: Iterable[float], part: float) -> float:
    """The smallest value that at least ``part`` of them do not exceed (nearest rank); 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered) - 1e-9) - 1)] if ordered else 0.0


@dataclass(slots=True)
class Tally:
    """What one generator has seen."""

    leased: int = 0
    finished: int = 0
    """Jobs or events whose commits were accepted, done or failed."""
    settled: list[tuple[float, int]] = field(default_factory=list)
    """When how many of them were accepted, seconds of the monotonic clock."""
    rate: float = 0.0
    """Finished a second, from when all edges were at work until none began anything."""
    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Seconds from when a call was due to its answer, by kind."""
    errors: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    """Processor time of the generator itself."""
    wall_s: float = 0.0

    @property
    def calls(self) -> int:
        return sum(map(len, self.times.values()))

    def lines(self, kinds: Iterable[str]) -> list[str]:
        """Times of calls of these kinds, for people."""
        rows = [f"    {'call':<12}{'number':>9}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}"]
        for kind in kinds:
            if seconds := self.times.get(kind):
                p50, p99 = percentile(seconds, 0.5), percentile(seconds, 0.99)
                rows.append(
                    f"    {kind:<12}{len(seconds):>9}{1e3 * p50:>9.1f}{1e3 * p99:>9.1f}{1e3 * max(seconds):>9.1f}"
                )
        return rows


def cpu_of(pids: Iterable[int]) -> float:
    """Processor seconds that processes and all that they have started have used so far."""
    total = 0.0
    for pid in pids:
        for process in (main := psutil.Process(pid), *main.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
            total += times.children_user + times.children_system
    return total


def own_cpu() -> float:
    """Processor seconds of this process."""
    times = os.times()
    return times.user + times.system


def rss_mb(pids: Iterable[int]) -> float:
    """Memory that processes have resident, MiB, all together."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids) / 2**20
