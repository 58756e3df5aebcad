"""Bounds from few and from many samples, and values that were left early."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.prediction.observations import Observations, Rank, scouts, tolerance
from hpcpanda.prediction.sketch import RELATIVE_ERROR


def seen(*ended: float, left: tuple[float, ...] = ()) -> Observations:
    observations = Observations()
    observations.ended.add_all(np.array(ended), np.ones(len(ended)))
    observations.censored.add_all(np.array(left), np.ones(len(left)))
    return observations


@pytest.mark.parametrize(
    ("risk", "confidence", "samples"), [(0.05, 0.95, 59), (0.1, 0.95, 29), (0.1, 0.9, 22), (0.01, 0.9, 230)]
)
def test_the_largest_sample_will_do_from_wilks_number_on(risk: float, confidence: float, samples: int):
    """The published sample sizes of one-sided tolerance limits: with one sample less it must be exceeded."""
    assert tolerance(samples, risk, confidence) == Rank(1.0, 1.0)
    fewer = tolerance(samples - 1, risk, confidence)
    assert fewer.share == 1.0
    assert 1.0 < fewer.factor < 1.1


def test_the_rank_is_that_of_the_binomial_distribution():
    """Against the sum of its terms, for sample sizes in which it decides."""
    for count in (22, 40, 100, 1000):
        above = round(count * (1 - tolerance(count, 0.1).share))
        below = [math.comb(count, j) * 0.1**j * 0.9 ** (count - j) for j in range(above + 2)]
        assert sum(below[:-1]) <= 0.1 < sum(below)


def test_many_samples_make_it_sharp():
    """The normal approximation takes over without a jump, and the bound closes in on the quantile."""
    shares = [tolerance(n, 0.1).share for n in (3900, 4000, 4100, 100_000, 10**9)]
    assert max(abs(a - b) for a, b in pairwise(shares[:3])) < 1e-3
    assert [round(s, 3) for s in shares[3:]] == [0.901, 0.9]


def test_fewer_samples_and_less_risk_lie_further_out():
    """The factor beyond the largest grows when samples or risk become fewer."""
    factors = [tolerance(n, 0.1).factor for n in (21, 10, 4, 2)]
    assert factors == sorted(factors)
    assert tolerance(10, 0.01).factor > tolerance(10, 0.1).factor


@pytest.mark.parametrize(("risk", "count"), [(0.3, 1), (0.1, 4), (0.05, 7), (0.01, 37)])
def test_scouts_are_as_many_as_an_unseen_slower_kind_demands(risk: float, count: int):
    """With so many, the worst share of a kind of job that is not among them is within the risk; with one less it is not."""
    shares = np.linspace(1e-4, 1, 10_001)

    def worst(n: int) -> float:
        return float((shares * (1 - shares) ** n).max())

    assert scouts(risk) == count
    assert worst(count) <= risk * (1 + 1e-6)
    assert count == 1 or worst(count - 1) > risk


def test_nothing_is_promised_before_the_scouts_are_back():
    """Three samples make no promise of ten percent, four do, and it lies beyond them all."""
    assert seen(10.0, 11.0, 12.0).bound(0.1, 1.0) is None
    bound = seen(10.0, 11.0, 12.0, 13.0).bound(0.1, 1.0)
    assert bound is not None
    assert bound > 13.0


def test_survival_is_that_of_kaplan_and_meier():
    """The textbook case: of ten, left at the marked times, by hand."""
    observations = seen(1.0, 3.0, 6.0, 6.0, 10.0, left=(2.0, 4.0, 4.0, 8.0, 9.0))
    found = [share for _, share in observations.survival()]
    expected = [9 / 10, 9 / 10 * 7 / 8, 9 / 10 * 7 / 8 * 3 / 5, 0.0]
    assert found == pytest.approx(expected)


def test_jobs_killed_at_their_limit_make_the_others_no_faster():
    """Of a hundred jobs of which forty were killed at 100 s, the 90th percentile is not known; leaving them out would
    tell 60 s."""
    observations = seen(*np.linspace(1, 60, 60).tolist(), left=(100.0,) * 40)
    assert observations.quantile(0.9) is None
    assert observations.bound(0.1, 1.0) is None
    assert observations.quantile(0.5) == pytest.approx(50.0, rel=0.02)
    assert observations.ended.quantile(0.9) == pytest.approx(54.0, rel=0.02)


def test_what_was_left_early_shifts_the_rest():
    """Exponential times, half of them cut off at random: the quantile of all is found, within the noise."""
    rng = np.random.default_rng(5)
    whole, cut = rng.exponential(100.0, 200_000), rng.exponential(100.0, 200_000)
    ended, left = whole[whole <= cut], cut[cut < whole]
    observations = seen(*ended.tolist(), left=tuple(left.tolist()))
    assert observations.quantile(0.9) == pytest.approx(100 * math.log(10), rel=0.05)
    assert observations.ended.quantile(0.9) == pytest.approx(50 * math.log(10), rel=0.05)


def test_old_samples_are_worth_less():
    """A hundred samples of two half-lives ago make the bound of twenty-five."""
    observations = seen(*np.linspace(1.0, 100.0, 100).tolist())
    assert observations.samples(1.0) == pytest.approx(100)
    assert observations.samples(4.0) == pytest.approx(25)
    new, old = observations.bound(0.1, 1.0), observations.bound(0.1, 4.0)
    assert new is not None
    assert old is not None
    assert old > new


def test_the_upper_edge_is_told():
    """Equal times are never exceeded by the bound's own rounding, nor overshot by more than twice the error."""
    bound = seen(*[77.0] * 300).bound(0.1, 1.0)
    assert bound is not None
    assert 77.0 <= bound <= 77.0 * (1 + 2.1 * RELATIVE_ERROR)


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, math.nan])
def test_a_risk_that_is_none_is_refused(risk: float):
    """Neither never nor always can be promised."""
    with pytest.raises(InvalidValue, match="risk"):
        seen(*[1.0] * 50).bound(risk, 1.0)
