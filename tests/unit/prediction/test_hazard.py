"""Preemption by hour of the week: exposure, shrinkage, convergence."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.prediction.hazard import (
    ASSUMED_NODE_HOURS,
    ASSUMED_RATE,
    HOURS,
    Hazard,
    by_hour,
    hour_of_week,
)

HOUR = 3600.0
MONDAY = 4 * 86_400.0
"""The first Monday of the Unix epoch, 0 h UTC."""


def test_weeks_begin_on_monday():
    """The epoch was a Thursday; an hour later is the next hour, a week later the same."""
    assert hour_of_week(0.0) == 72
    assert hour_of_week(MONDAY) == 0
    assert hour_of_week(MONDAY + 25.5 * HOUR) == 25
    assert hour_of_week(MONDAY - 1) == HOURS - 1
    assert hour_of_week(MONDAY + 7 * 86_400.0) == 0


def test_a_time_is_cut_at_full_hours():
    """From Sunday night into Monday, with the hours of each."""
    assert list(by_hour(MONDAY - 900.0, MONDAY + 4500.0)) == [(167, 0.25), (0, 1.0), (1, 0.25)]
    assert sum(h for _, h in by_hour(17.0, 17.0 + 40 * 86_400.0)) == pytest.approx(40 * 24)
    assert list(by_hour(5.0, 5.0)) == []


def test_nothing_seen_is_the_assumption():
    """The same at every hour."""
    hazard = Hazard()
    assert hazard.rate(MONDAY, HOUR, 1.0) == pytest.approx(ASSUMED_RATE)
    assert hazard.rate(MONDAY + 55 * HOUR, 4 * HOUR, 1.0) == pytest.approx(ASSUMED_RATE)


def test_a_long_quiet_time_lowers_the_hazard():
    """A thousand node-hours without a preemption count for more than the assumption."""
    hazard = Hazard()
    hazard.hold(10, MONDAY, MONDAY + 100 * HOUR, 1.0)
    expected = ASSUMED_RATE * ASSUMED_NODE_HOURS / (1000 + ASSUMED_NODE_HOURS)
    assert hazard.mean(1.0) == pytest.approx(expected)
    assert hazard.rate(MONDAY, HOUR, 1.0) < ASSUMED_RATE / 50


def test_hazards_converge_by_hour():
    """Poisson preemptions, mornings ten times worse: a hundred weeks bring every hour close to its own rate, and three
    weeks the mean, while an hour that was hardly held stays near the mean."""
    rng = np.random.default_rng(11)
    true = np.where((np.arange(HOURS) % 24 >= 8) & (np.arange(HOURS) % 24 < 12), 0.05, 0.005)

    def seen(weeks: int) -> Hazard:
        hazard = Hazard()
        for week in range(weeks):
            for hour in range(HOURS):
                at = MONDAY + (week * HOURS + hour) * HOUR
                hazard.hold(20, at, at + HOUR, 1.0)
                for _ in range(rng.poisson(20 * true[hour])):
                    hazard.preempt(at + 60.0, 1.0)
        return hazard

    long, short = seen(100), seen(3)
    rates = np.array([long.rate(MONDAY + h * HOUR, HOUR, 1.0) for h in range(HOURS)])
    assert np.abs(rates - true).max() < 0.02
    assert np.abs(rates - true).mean() < 0.002
    assert short.mean(1.0) == pytest.approx(true.mean(), rel=0.2)
    few = Hazard()
    few.preemptions[5], few.node_hours[5] = 20.0, 1000.0
    few.preemptions[6], few.node_hours[6] = 1.0, 1.0
    one_in_one = few.rate(MONDAY + 6 * HOUR, HOUR, 1.0)
    assert few.mean(1.0) < one_in_one < 2 * few.mean(1.0)


def test_the_time_ahead_is_averaged():
    """Half an hour of a bad hour and three and a half of good ones weigh by their time."""
    hazard = Hazard()
    hazard.preemptions[0], hazard.node_hours = 1e4, [1e5] * HOURS
    bad, good = hazard.rate(MONDAY, HOUR, 1.0), hazard.rate(MONDAY + HOUR, HOUR, 1.0)
    ahead = hazard.rate(MONDAY + HOUR / 2, 4 * HOUR, 1.0)
    assert ahead == pytest.approx(bad / 8 + good * 7 / 8)


def test_weights_of_the_past_are_divided_out():
    """The same seen twice as heavily, told at twice the scale, is the same."""
    one, two = Hazard(), Hazard()
    for hazard, weight in ((one, 1.0), (two, 2.0)):
        hazard.hold(4, MONDAY, MONDAY + 9 * HOUR, weight)
        hazard.preempt(MONDAY, weight)
    assert two.rate(MONDAY, HOUR, 2.0) == pytest.approx(one.rate(MONDAY, HOUR, 1.0))
    two.scale(0.5)
    assert two == one


def test_no_nodes_are_refused():
    """They cannot be held."""
    with pytest.raises(InvalidValue, match="nodes"):
        Hazard().hold(0, 0.0, 1.0, 1.0)
    with pytest.raises(InvalidValue, match="since"):
        Hazard().hold(1, 0.0, float("inf"), 1.0)
