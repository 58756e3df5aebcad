"""Values of which some are only known to be larger than what was seen, and bounds that later ones keep. Pure.

A job that is killed at its limit, or an allocation that still waits, is *censored*: it would have taken longer. Leaving
such out makes what is left look short, so the share that survives a value is estimated by the product-limit of Kaplan and
Meier ("Nonparametric estimation from incomplete observations", J. Am. Stat. Assoc. 53, 1958).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import NormalDist
from typing import Final

from hpcpanda.domain.validation import require_between
from hpcpanda.prediction.sketch import Sketch, middle, upper_edge

CONFIDENCE: Final = 0.9
"""Probability with which a bound that is made of samples keeps its promise."""
TAIL_INDEX: Final = 1.0
"""Beyond the largest sample the share of larger values is taken to fall no slower than a power of this: a Pareto tail
so heavy that it has no mean."""

_MANY: Final = 400.0
"""From so many expected values above a bound on, the binomial distribution is taken as normal."""
_SLACK: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Rank:
    """Where a bound lies among samples: at a share of them, or beyond the largest by a factor."""

    share: float
    factor: float


@lru_cache(maxsize=4096)
def tolerance(samples: float, risk: float, confidence: float = CONFIDENCE) -> Rank:
    """Where, among so many samples of any continuous distribution, a bound lies that at most ``risk`` of it exceeds.

    It holds with the given confidence over the samples drawn: the nonparametric tolerance limit of Wilks
    ("Determination of sample sizes for setting tolerance limits", Ann. Math. Stat. 12, 1941). The sample with ``j``
    larger ones among ``n`` will do when ``P(Binomial(n, risk) <= j) <= 1 - confidence``. Where even the largest will
    not, the share above it is at most ``u = 1 - (1 - confidence)**(1/n)``, and the tail that is assumed, see
    :data:`TAIL_INDEX`, gives the factor beyond it: ``(u / risk)**(1 / TAIL_INDEX)``.

    Raises:
        InvalidValue: the risk or the confidence is not between 0 and 1, or there are no samples.
    """
    require_between("risk", risk, 1e-6, 1 - 1e-6)
    require_between("confidence", confidence, 1e-6, 1 - 1e-6)
    require_between("samples", samples, 1e-9, 1e18)
    count = math.floor(samples + _SLACK)
    above = _above(count, risk, 1 - confidence)
    if above >= 0:
        return Rank((count - above) / count, 1.0)
    share = -math.expm1(math.log(1 - confidence) / samples)
    return Rank(1.0, max(1.0, (share / risk) ** (1 / TAIL_INDEX)))


def _above(count: int, risk: float, doubt: float) -> int:
    """The largest ``j`` with ``P(Binomial(count, risk) <= j) <= doubt``; -1 when there is none."""
    expected = count * risk
    if expected > _MANY:
        spread = math.sqrt(expected * (1 - risk))
        return max(0, math.floor(expected + NormalDist().inv_cdf(doubt) * spread) - 1)
    if count == 0:
        return -1
    logs = count * math.log1p(-risk)
    total, j = math.exp(logs), 0
    if total > doubt:
        return -1
    while j < count:
        logs += math.log(count - j) - math.log(j + 1) + math.log(risk) - math.log1p(-risk)
        total += math.exp(logs)
        if total > doubt:
            return j
        j += 1
    return count - 1


@lru_cache(maxsize=64)
def scouts(risk: float) -> int:
    """How many samples must be seen before a bound made of them can be promised at all.

    Of a second, much slower kind with the share ``p`` nothing is among ``n`` samples with probability ``(1 - p)**n``;
    whatever is made of them is then exceeded by ``p`` of all. The expected share, ``p (1 - p)**n``, is at its worst
    ``n**n / (n + 1)**(n + 1)``: this gives the least ``n`` for which that is no more than the risk.
    """
    require_between("risk", risk, 1e-6, 1 - 1e-6)
    n = max(1, math.floor(1 / (math.e * risk)) - 1)
    while n * math.log(n) - (n + 1) * math.log(n + 1) > math.log(risk):
        n += 1
    return n


@dataclass(slots=True, kw_only=True)
class Observations:
    """Values that were seen, and values that were left while they still grew."""

    ended: Sketch = field(default_factory=Sketch)
    censored: Sketch = field(default_factory=Sketch)
    """Would have become larger than what is entered here."""

    def __bool__(self) -> bool:
        return bool(self.ended) or bool(self.censored)

    def copy(self) -> Observations:
        """The same observations, to be added to."""
        return Observations(ended=self.ended.copy(), censored=self.censored.copy())

    def scale(self, factor: float, least: float = 0.0) -> None:
        """Multiply all weights; see :meth:`Sketch.scale`."""
        self.ended.scale(factor, least)
        self.censored.scale(factor, least)

    def samples(self, scale: float) -> float:
        """Values seen to the end that count: no more than they are worth by their age.

        ``scale``: the weight of a value that is seen now.
        """
        return min(self.ended.samples, self.ended.total / scale)

    def survival(self) -> Iterator[tuple[int, float]]:
        """Buckets in which values ended, smallest first, each with the share of all values that is larger."""
        at_risk = self.ended.total + self.censored.total
        left = sorted(self.censored.weights.items(), reverse=True)
        share = 1.0
        for index, weight in self.ended.ascending():
            while left and left[-1][0] < index:
                at_risk -= left.pop()[1]
            share *= max(0.0, 1 - weight / at_risk) if at_risk > weight * (1 + _SLACK) else 0.0
            at_risk -= weight
            yield index, share

    def rank(self, share: float) -> int | None:
        """Bucket of the smallest value that at least this share of all does not exceed; None when it is not known,
        since too many were left before."""
        return next((i for i, larger in self.survival() if larger <= 1 - share + _SLACK), None)

    def quantile(self, share: float) -> float | None:
        """The value that this share of all does not exceed; None when it is not known."""
        index = self.rank(share)
        return None if index is None else middle(index)

    def bound(self, risk: float, scale: float, confidence: float = CONFIDENCE) -> float | None:
        """A value that a later one exceeds with no more than this probability, see :func:`tolerance`.

        None when it cannot be said: there are fewer samples than :func:`scouts`, or too many were left early.

        Args:
            risk: probability of exceeding it.
            scale: the weight of a value that is seen now.
            confidence: with which the promise is kept.

        Raises:
            InvalidValue: risk or confidence is not between 0 and 1.
        """
        samples = self.samples(scale)
        if samples + 0.5 < scouts(risk):  # a few days take little off what a sample is worth
            return None
        rank = tolerance(samples, risk, confidence)
        index = self.rank(rank.share)
        return None if index is None else upper_edge(index) * rank.factor
