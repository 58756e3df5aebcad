"""The logarithmic histogram: bounded room, refusals, weights."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.prediction.sketch import MOST_BUCKETS, RELATIVE_ERROR, Sketch, bucket, middle, upper_edge


def test_an_empty_sketch_tells_nothing():
    """No quantile is made up."""
    sketch = Sketch()
    assert not sketch
    assert (sketch.quantile(0.5), sketch.samples, sketch.total) == (None, 0.0, 0.0)


def test_the_room_is_bounded_whatever_comes():
    """Values from nothing to far beyond any walltime fill at most the stated number of buckets."""
    sketch = Sketch()
    values = np.concatenate([[0.0], np.logspace(-300, 300, 20_000)])
    sketch.add_all(values, np.ones(len(values)))
    assert len(sketch.weights) <= MOST_BUCKETS
    assert MOST_BUCKETS < 2000


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_what_is_no_time_is_refused_and_changes_nothing(value: float):
    """One bad value among many leaves the sketch as it was."""
    sketch = Sketch()
    sketch.add(1.0)
    before = sketch.copy()
    with pytest.raises(InvalidValue):
        sketch.add(value)
    with pytest.raises(InvalidValue):
        sketch.add_all(np.array([1.0, value]), np.ones(2))
    assert sketch == before


@pytest.mark.parametrize("value", [1e-6, 0.03, 1.0, 7.2e3, 1e7])
def test_a_bucket_holds_its_values(value: float):
    """The middle is within the stated error of a value, and the upper edge not below it."""
    index = bucket(value)
    assert abs(middle(index) - value) <= RELATIVE_ERROR * value * (1 + 1e-9)
    assert value <= upper_edge(index) * (1 + 1e-12)


def test_weights_count_as_so_many_values():
    """A value of weight 9 beside one of weight 1 is the median and the 90th percentile, not the maximum."""
    sketch = Sketch()
    sketch.add(10.0, 9.0)
    sketch.add(1000.0, 1.0)
    assert sketch.quantile(0.9) == pytest.approx(10.0, rel=RELATIVE_ERROR)
    assert sketch.quantile(1.0) == pytest.approx(1000.0, rel=RELATIVE_ERROR)
    assert sketch.samples == pytest.approx(100 / 82)


def test_scaling_changes_no_quantile_and_forgets_what_became_light():
    """Only the buckets under the stated weight go."""
    sketch = Sketch()
    sketch.add(1.0, 0.001)
    sketch.add(5.0, 4.0)
    sketch.scale(0.25, 0.01)
    assert list(sketch.weights) == [bucket(5.0)]
    assert sketch.samples == pytest.approx(1.0, rel=1e-3)
