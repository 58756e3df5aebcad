"""How far each share is from what was due to it.

Shares that have work divide the machine among themselves by their targets; what one leaves goes to those with the same
parent first, as with PanDA's global shares. What was due to a share is the sum of its part of every hour, past ones
counted less (as in Slurm's fair share), but only of the hours in which it had work: borrowing costs nothing, and who
comes back after a time without work has its part again at once, without being owed for the time before.

Sources: F. Barreiro Megino et al., "PanDA: evolution and recent trends in LHC computing", EPJ Web Conf. 2019 (global
shares); Slurm documentation, "Fair Tree Fairshare Algorithm" and "Multifactor Priority Plugin" (levels, decay).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from hpcpanda.brokerage.shares import ShareTree

HOUR = 3600.0
MAX_LAG = 5.0
"""A share that has had nothing counts as one that has had exp(-5) of what was due."""
ABSENT_H = 12
"""A share that has used nothing for so many hours had no work in them; in shorter gaps it had."""
HALF_LIVES = 6
"""What was used so many half-lives ago counts as nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What has been used, in core-seconds."""

    hours: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """Finished work by share and hour since 1970."""
    in_work: Mapping[str, float] = field(default_factory=dict)
    """Work in progress by share."""
    users: Mapping[str, float] = field(default_factory=dict)
    """By user in the last 24 hours, work in progress included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a share stands."""

    lag: float
    """ln(due / used): above 0 when it has had less than was due."""
    target: float
    """Its part of the machine now, 0..1: targets divided among those that have work."""
    due: float
    """Core-seconds that were due to it, past ones decayed."""
    used: float
    """Core-seconds that it has had, past ones decayed, with those in work."""


def standings(tree: ShareTree, usage: Usage, active: AbstractSet[str], *, now: float) -> dict[str, Standing]:
    """Where each share that has work waiting stands.

    Args:
        tree: the shares.
        usage: what has been used; of shares that are not in the tree it does not count.
        active: shares without parts that have work waiting.
        now: Unix seconds.
    """
    leaves = {leaf for leaf in {*usage.hours, *usage.in_work, *active} if leaf in tree.leaves}
    current = int(now // HOUR)
    half_life_h = tree.plan.half_life_h
    oldest = current - math.ceil(HALF_LIVES * half_life_h)
    had_work = {leaf: _present(usage.hours.get(leaf, {}), leaf in active, current) for leaf in leaves}
    due = dict.fromkeys(leaves, 0.0)
    used = {leaf: max(0.0, usage.in_work.get(leaf, 0.0)) for leaf in leaves}
    together: dict[frozenset[str], float] = {}
    for hour in sorted({h for leaf in leaves for h in usage.hours.get(leaf, {}) if oldest <= h <= current}):
        weight = 0.5 ** (max(0.0, now / HOUR - hour - 0.5) / half_life_h)
        there = frozenset(leaf for leaf in leaves if any(a <= hour <= b for a, b in had_work[leaf]))
        for leaf in there:
            amount = weight * max(0.0, usage.hours.get(leaf, {}).get(hour, 0.0))
            used[leaf] += amount
            together[there] = together.get(there, 0.0) + amount
    present = frozenset(leaf for leaf in leaves if leaf in active or (used[leaf] and usage.in_work.get(leaf)))
    together[present] = together.get(present, 0.0) + sum(usage.in_work.get(leaf, 0.0) for leaf in leaves)
    for there, amount in together.items():
        for leaf, target in targets(tree, there).items():
            due[leaf] += target * amount
    now_due = targets(tree, active)
    return {
        leaf: Standing(
            lag=_lag(due[leaf], used[leaf], now_due[leaf]),
            target=now_due[leaf],
            due=due[leaf],
            used=used[leaf],
        )
        for leaf in active
    }


def targets(tree: ShareTree, active: AbstractSet[str]) -> dict[str, float]:
    """Parts of the machine, which add up to 1, when just these shares have work."""
    busy = {share.name for leaf in active for share in tree.path(leaf)}
    found: dict[str, float] = {}
    open_: list[tuple[str | None, float]] = [(None, 1.0)]
    while open_:
        parent, part = open_.pop()
        siblings = [share for share in tree.children.get(parent, ()) if share.name in busy]
        total = sum(share.target for share in siblings)
        for share in siblings:
            own = part * (share.target / total if total else 1.0 / len(siblings))
            if share.name in tree.leaves:
                found[share.name] = own
            else:
                open_.append((share.name, own))
    return found


def _present(by_hour: Mapping[int, float], active: bool, current: int) -> list[tuple[int, int]]:  # noqa: FBT001 - one of two
    """Spans of hours, both ends included, in which a share had work."""
    spans: list[tuple[int, int]] = []
    for hour in [*sorted(h for h, amount in by_hour.items() if amount > 0), *([current] if active else [])]:
        if spans and hour - spans[-1][1] <= ABSENT_H:
            spans[-1] = (spans[-1][0], hour)
        else:
            spans.append((hour, hour))
    return spans


def _lag(due: float, used: float, target: float) -> float:
    """``ln(due / used)`` within bounds; a share of target 0 among others with work is always last."""
    if target <= 0.0:
        return -MAX_LAG
    if due <= 0.0:
        return 0.0 if used <= 0.0 else -MAX_LAG
    if used <= 0.0:
        return MAX_LAG
    return max(-MAX_LAG, min(MAX_LAG, math.log(due / used)))
