"""Queue waits by shape."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.packing.forecast import Forecast
from hpcpanda.prediction.waits import LAST_NODES, LAST_WALLTIME, QueueWaits, Waiting, shape_class


def wait(waits: QueueWaits, nodes: int, walltime_s: float, *seconds: float) -> None:
    observations = waits.of(shape_class(nodes, walltime_s))
    observations.ended.add_all(np.array(seconds), np.ones(len(seconds)))


@pytest.mark.parametrize(
    ("nodes", "walltime_s", "shape"),
    [(1, 60.0, (0, 0)), (1, 900.0, (0, 0)), (1, 901.0, (0, 1)), (2, 3600.0, (1, 2)), (5, 14_400.0, (3, 4))],
)
def test_shapes_are_classed_by_octaves(nodes: int, walltime_s: float, shape: tuple[int, int]):
    """A class reaches up to and including its power of two."""
    assert shape_class(nodes, walltime_s) == shape


def test_there_is_a_last_class():
    """However wide and long, so that the room is bounded."""
    assert shape_class(10**9, 1e10) == (LAST_NODES, LAST_WALLTIME)
    with pytest.raises(InvalidValue):
        shape_class(0, 60.0)


def test_each_shape_has_its_wait():
    """Wide requests wait longer; the forecast's first row that covers a shape is its own class."""
    waits = QueueWaits()
    rng = np.random.default_rng(2)
    wait(waits, 1, 3600.0, *rng.exponential(60.0, 500))
    wait(waits, 64, 3600.0, *rng.exponential(6000.0, 500))
    forecast = Forecast(queue_waits=waits.forecast(1.0))
    narrow, wide = forecast.wait(1, 3600.0), forecast.wait(40, 3000.0)
    assert narrow is not None
    assert wide is not None
    assert narrow.median_s == pytest.approx(60 * np.log(2), rel=0.15)
    assert narrow.p90_s == pytest.approx(60 * np.log(10), rel=0.2)
    assert wide.median_s == pytest.approx(6000 * np.log(2), rel=0.15)
    assert (narrow.seen, wide.seen) == (500, 500)
    assert forecast.wait(128, 3600.0) is None


def test_a_shape_seen_once_is_as_all_together():
    """One lucky start of a wide shape does not make its wait nothing."""
    waits = QueueWaits()
    wait(waits, 1, 3600.0, *[1000.0] * 100)
    wait(waits, 32, 3600.0, 1.0)
    lucky = next(w for w in waits.forecast(1.0) if w.nodes == 32)
    assert lucky.seen == 1
    assert lucky.median_s == pytest.approx(1000.0, rel=0.02)


def test_those_that_still_wait_count():
    """Ten started within a minute, ten have waited for an hour: the 90th percentile is at least that hour."""
    waits = QueueWaits()
    wait(waits, 2, 3600.0, *[60.0] * 10)
    still = [Waiting(nodes=2, walltime_s=3600.0, seconds=3600.0)] * 10
    (before,), (after,) = waits.forecast(1.0), waits.forecast(1.0, still)
    assert before.p90_s == pytest.approx(60.0, rel=0.02)
    assert after.p90_s == pytest.approx(3600.0, rel=0.02)
    assert after.seen == 10
    assert waits.forecast(1.0) == (before,)


def test_only_waiting_ones_give_a_wait_of_at_least_that():
    """Nothing has started yet, and that much is known."""
    (row,) = QueueWaits().forecast(1.0, [Waiting(nodes=1, walltime_s=60.0, seconds=500.0)])
    assert (row.seen, row.median_s) == (0, pytest.approx(500.0, rel=0.02))


def test_nothing_known_gives_no_rows():
    """Nor do classes of which all was forgotten."""
    waits = QueueWaits()
    assert waits.forecast(1.0) == ()
    wait(waits, 1, 60.0, 5.0)
    waits.scale(1e-9, 1e-6)
    assert waits.forecast(1.0) == ()
    assert not waits.seen


def test_the_rows_are_the_quantiles_of_the_product_limit():
    """With so many seen that the others do not matter, against the one-by-one way, waits left early included."""
    rng = np.random.default_rng(6)
    waits = QueueWaits()
    observations = waits.of(shape_class(1, 60.0))
    observations.ended.add_all(rng.exponential(50.0, 5000), np.ones(5000))
    observations.censored.add_all(rng.exponential(80.0, 3000), np.ones(3000))
    (row,) = waits.forecast(1.0)
    assert row.median_s == pytest.approx(observations.quantile(0.5))
    assert row.p90_s == pytest.approx(observations.quantile(0.9))
