"""The expected useful time of an allocation, against closed forms and against throwing dice."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.packing.forecast import Forecast, QueueWait
from hpcpanda.packing.shaping.queue import useful_share
from hpcpanda.packing.shaping.value import Prospect


def value(prospect: Prospect, nodes: int, life: float, *, cut: bool = False) -> tuple[float, float]:
    """Useful and held seconds."""
    n, t = np.array(nodes), np.array(life)
    return float(prospect.useful(n, t, cut=np.array(float(cut)))), float(prospect.held(n, t))


def test_without_preemption_start_up_and_drain_are_taken_off() -> None:
    """And the grace time instead of the drain where the centre ends it."""
    prospect = Prospect(startup_s=10.0, drain_s=60.0, loss_s=20.0)
    assert value(prospect, 7, 600.0) == (530.0, 600.0)
    assert value(prospect, 7, 600.0, cut=True) == (570.0, 600.0)
    assert value(prospect, 7, 50.0) == (0.0, 50.0)
    assert useful_share(prospect, 7, 600.0) == pytest.approx(530 / 600)


@pytest.mark.parametrize(("nodes", "rate", "life"), [(1, 0.5, 3600.0), (16, 0.2, 7200.0), (200, 0.05, 900.0)])
def test_with_preemption_it_is_the_mean_over_many_throws(nodes: int, rate: float, life: float) -> None:
    """200 000 exponential times of preemption, within half a percent of the formula."""
    prospect = Prospect(startup_s=30.0, drain_s=60.0, loss_s=20.0, preemptions_per_node_hour=rate)
    strikes = np.random.default_rng(1).exponential(3600.0 / (nodes * rate), 200_000)
    end = np.minimum(strikes, life)
    lost = np.where(strikes >= life, 60.0, np.where(strikes > 30.0, 20.0, 0.0))
    useful, held = value(prospect, nodes, life)
    assert held == pytest.approx(end.mean(), rel=5e-3)
    assert useful == pytest.approx((np.maximum(end - 30.0, 0.0) - lost).mean(), rel=1e-2)


def test_a_hazard_that_vanishes_changes_nothing() -> None:
    """The formula goes over into its limit without a jump."""
    still = Prospect(startup_s=10.0, drain_s=60.0, loss_s=20.0)
    hardly = Prospect(startup_s=10.0, drain_s=60.0, loss_s=20.0, preemptions_per_node_hour=1e-9)
    assert value(hardly, 50, 5000.0) == pytest.approx(value(still, 50, 5000.0), rel=1e-6)


def test_a_measured_start_up_never_fills_an_allocation() -> None:
    """One wild measurement leaves half of the time: otherwise nothing would run, and nothing better be learnt."""
    assert Forecast(startup_s=900.0).startup_within(600.0) == 300.0
    assert Forecast(startup_s=9.0).startup_within(600.0) == 9.0


def test_the_first_wait_that_covers_a_shape_counts() -> None:
    """None is known of larger ones."""
    small = QueueWait(nodes=4, seconds=3600.0, median_s=60.0, p90_s=600.0)
    large = QueueWait(nodes=64, seconds=14_400.0, median_s=900.0, p90_s=9000.0)
    forecast = Forecast(queue_waits=(small, large))
    assert (forecast.wait(4, 3600.0), forecast.wait(5, 3600.0), forecast.wait(65, 60.0)) == (
        small,
        large,
        None,
    )
