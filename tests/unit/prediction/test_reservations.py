"""Requests that waste least, against all sequences there are."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.prediction.observations import Observations
from hpcpanda.prediction.reservations import plan_reservations
from hpcpanda.prediction.sketch import bucket, upper_edge


def seen(values: np.ndarray) -> Observations:
    observations = Observations()
    observations.ended.add_all(values, np.ones(len(values)))
    return observations


def expected_cost(sequence: tuple[float, ...], lengths: list[float], shares: list[float]) -> float:
    """By definition: every length with its share goes through the sequence until it fits."""
    total = 0.0
    for length, share in zip(lengths, shares, strict=True):
        for request in sequence:
            total += share * request
            if request >= length:
                break
    return total


def test_no_sequence_costs_less():
    """Every subset of the lengths, with the limit at its end, is tried; the plan's cost is the least and its own."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        values = np.sort(rng.choice([10.0, 20.0, 40.0, 80.0, 160.0, 320.0], size=rng.integers(1, 30)))
        limit = 1000.0
        plan = plan_reservations(seen(values), limit)
        assert plan is not None
        n = len(values)
        lengths = [upper_edge(bucket(v)) for v in np.unique(values)]
        shares = [float((values == v).mean()) * n / (n + 1) for v in np.unique(values)]
        lengths, shares = [*lengths, limit], [*shares, 1 / (n + 1)]
        subsets = [c for k in range(len(lengths)) for c in combinations(lengths[:-1], k)]
        costs = [expected_cost((*s, limit), lengths, shares) for s in subsets]
        assert plan.cost == pytest.approx(min(costs))
        assert plan.cost == pytest.approx(expected_cost(plan.seconds, lengths, shares))
        assert plan.seconds[-1] == limit


def test_two_kinds_of_jobs_are_asked_for_one_after_the_other():
    """Nine in ten take 100 s, the rest 10 000 s: asking for 100 s first wastes least."""
    observations = seen(np.array([100.0] * 900 + [10_000.0] * 100))
    cheap = plan_reservations(observations, 20_000.0)
    assert cheap is not None
    assert cheap.seconds[0] == pytest.approx(100.0, rel=0.02)
    assert cheap.seconds[1] == pytest.approx(10_000.0, rel=0.02)
    assert cheap.cost < 2_000.0


def best_for_exponential(mean: float) -> float:
    """Where the derivative of the expected cost vanishes, ``t[i+1] = mean * exp((t[i] - t[i-1]) / mean)``; the best first
    request is searched for."""
    best = math.inf
    for first in np.linspace(0.1, 1.5, 2001):
        before, at, cost = 0.0, float(first), float(first)
        while at < 40 and at > before:
            before, at = at, math.exp(at - before)
            cost += at * math.exp(-before)
        if at > before:
            best = min(best, cost)
    return best * mean


def test_many_lengths_are_thinned_without_harm():
    """Ten thousand exponential times: few steps, and the cost within two percent of the best sequence there is."""
    observations = seen(np.random.default_rng(4).exponential(100.0, 10_000))
    plan = plan_reservations(observations, 5_000.0)
    assert plan is not None
    assert len(plan.seconds) < 10
    assert plan.cost == pytest.approx(best_for_exponential(100.0), rel=0.02)


def test_without_a_finished_job_there_is_no_plan():
    """Jobs that were killed alone tell no length."""
    observations = Observations()
    assert plan_reservations(observations, 100.0) is None
    observations.censored.add(100.0)
    assert plan_reservations(observations, 100.0) is None


def test_a_limit_that_is_none_is_refused():
    """It has to be positive."""
    with pytest.raises(InvalidValue, match="limit"):
        plan_reservations(seen(np.array([1.0])), 0.0)
