"""A machine on which groups share cores by the product's own order: hours in milliseconds.

Cores are slots that each run one job at a time. Whenever slots are free they are given to the tasks that the order
puts first; what they run is charged when it ends, and counts as in work before, as in the dispatcher.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from hpcpanda.brokerage.fairness import HOUR, Usage
from hpcpanda.brokerage.order import Waiting, rank
from hpcpanda.brokerage.shares import ShareTree


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A group's work: always something waiting while ``active`` says so."""

    user: str
    group: str
    priority: int = 0
    job_s: float = 3600.0
    """Mean length of a job; single ones are between half and one and a half of it."""
    active: Callable[[float], bool] = lambda hour: True


@dataclass(kw_only=True)
class Week:
    """What has come of it."""

    core_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """By group."""
    by_hour: dict[int, dict[str, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    """By hour of the start of jobs, by group."""
    idle: float = 0.0
    """Core-seconds for which slots were free while work waited."""
    longest_wait: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds, by group, between two servings while there was work."""

    def parts(self, hours: range) -> Mapping[str, float]:
        """Each group's part of what was started in these hours."""
        sums: dict[str, float] = defaultdict(float)
        for hour in hours:
            for group, amount in self.by_hour[hour].items():
                sums[group] += amount
        total = sum(sums.values())
        return {group: amount / total for group, amount in sums.items()}


def simulate(
    tree: ShareTree, streams: list[Stream], *, cores: int, hours: float, seed: int = 1, step_s: float = 60.0
) -> Week:
    """Run the machine."""
    random = Random(seed)
    week = Week()
    running: list[tuple[float, int, float]] = []
    free = cores
    ledger: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    in_work: dict[int, float] = defaultdict(float)
    served = dict.fromkeys(range(len(streams)), 0.0)
    now = 0.0
    while now < hours * HOUR:
        while running and running[0][0] <= now:
            end, number, length = heapq.heappop(running)
            ledger[streams[number].user][int(end // HOUR)] += length
            in_work[number] -= length
            free += 1
        waiting = [n for n, s in enumerate(streams) if s.active(now / HOUR)]
        for number, stream in enumerate(streams):
            if number not in waiting:
                served[number] = now
            else:
                gap = now - served[number]
                week.longest_wait[stream.group] = max(week.longest_wait[stream.group], gap)
        leaves = [tree.leaf_of(owner=stream.user, group=stream.group) for stream in streams]
        day = now / HOUR - 24
        recent = {
            user: sum(a for hour, a in hours_of.items() if hour > day) for user, hours_of in ledger.items()
        }
        by_leaf: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for stream, leaf in zip(streams, leaves, strict=True):
            for hour, amount in ledger[stream.user].items():
                by_leaf[leaf][hour] += amount
        while free and waiting:
            shares: dict[str, float] = defaultdict(float)
            users: dict[str, float] = defaultdict(float, recent)
            for number, stream in enumerate(streams):
                shares[leaves[number]] += in_work[number]
                users[stream.user] += in_work[number]
            tasks = [
                Waiting(
                    task_id=n,
                    owner=streams[n].user,
                    group=streams[n].group,
                    priority=streams[n].priority,
                    served=served[n],
                )
                for n in waiting
            ]
            best = rank(tasks, Usage(hours=by_leaf, in_work=shares, users=users), tree, now=now)[
                0
            ].task.task_id
            length = streams[best].job_s * random.uniform(0.5, 1.5)
            heapq.heappush(running, (now + length, best, length))
            in_work[best] += length
            served[best] = now
            free -= 1
            week.core_seconds[streams[best].group] += length
            week.by_hour[int(now // HOUR)][streams[best].group] += length
        if waiting:
            week.idle += free * step_s
        now += step_s
    return week
