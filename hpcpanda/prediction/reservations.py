"""How much time to ask for, for a job of which the time is uncertain: the requests that waste least. Pure.

Too little is wasted when the job is killed, too much when it ends early. After Aupy, Gainaru, Honoré, Raghavan, Robert and
Sun, "Reservation strategies for stochastic jobs" (IEEE IPDPS 2019), with the cost of a request that is the time asked
for: what of it is not used is lost to others, and a killed job is asked for again, with more. For a discrete distribution
the best sequence of requests follows by dynamic programming from the longest on; the first of them is what to ask for.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from hpcpanda.domain.validation import require_between
from hpcpanda.prediction.observations import Observations
from hpcpanda.prediction.sketch import upper_edge

_STEP: Final = 1 / 64
"""Lengths are taken together as the longest of them where no larger share of jobs lies between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservations:
    """What to ask for, one after the other until the job ends."""

    seconds: tuple[float, ...]
    """Increasing; the last is the limit."""
    cost: float
    """Seconds asked for, expected, of all requests of a job together; less its own time it is what is wasted."""


def plan_reservations(seen: Observations, limit: float) -> Reservations | None:
    """The sequence of requests with the least expected cost.

    Args:
        seen: walltimes; those beyond the limit count as the limit.
        limit: longest time that a job may take, seconds: whatever is not known lies below it.

    Returns:
        The sequence; None when no walltime has been seen.

    Raises:
        InvalidValue: the limit is not positive.
    """
    require_between("limit", limit, 1e-6, 1e10)
    if not seen.ended:
        return None
    lengths, larger = _steps(seen, limit)
    shares = [before - after for before, after in pairwise([1.0, *larger])]
    return _best(lengths, shares)


def _steps(seen: Observations, limit: float) -> tuple[list[float], list[float]]:
    """Lengths, and the share of jobs that takes longer than each; the last is the limit, which none exceeds.

    Of ``n`` jobs seen, the next is taken to be longer than all with a probability of ``1 / (n + 1)``.
    """
    beyond = 1 / (1 + seen.ended.samples)
    lengths: list[float] = []
    larger: list[float] = []
    before = 1.0
    for index, share in seen.survival():
        edge = upper_edge(index)
        if edge >= limit:
            break
        if not lengths or before - share >= _STEP:
            before = larger[-1] if larger else 1.0
            lengths.append(edge)
            larger.append(share)
        else:
            lengths[-1], larger[-1] = edge, share
    return [*lengths, limit], [*(beyond + (1 - beyond) * share for share in larger), 0.0]


def _best(lengths: list[float], shares: list[float]) -> Reservations:
    """By dynamic programming: what jobs cost that have outlived all lengths before, times their share."""
    n = len(lengths)
    least = [0.0] * (n + 1)
    choice = [0] * n
    for i in range(n - 1, -1, -1):
        alive = sum(shares[i:])
        best = float("inf")
        for j in range(i, n):
            total = alive * lengths[j] + least[j + 1]
            if total < best:
                best, choice[i] = total, j
        least[i] = best
    sequence: list[float] = []
    at = 0
    while at < n:
        sequence.append(lengths[choice[at]])
        at = choice[at] + 1
    return Reservations(seconds=tuple(sequence), cost=least[0])
