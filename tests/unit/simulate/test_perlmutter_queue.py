"""The queue of the Perlmutter scenario under production's requests."""

from __future__ import annotations

import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.simulate.perlmutter.queue import run_queue


def test_limits_are_kept_and_used() -> None:
    """As many requests as the limit allows are queued or running at any time."""
    found = run_queue(12, seed=3)
    assert found.waiting + found.running == pytest.approx(12.0)


def test_allocations_run_for_their_walltime() -> None:
    """Those that started ran for 4.05 h, but for the last ones (Little's law)."""
    found = run_queue(30, seed=2)
    assert found.running == pytest.approx(found.a_day / 24 * 4.05, rel=0.03)


def test_more_requests_get_more_allocations() -> None:
    """And the waits of those that start are as published, cut at two weeks."""
    few, many = run_queue(4), run_queue(40)
    assert many.started > 5 * few.started
    assert many.wait_median_s == pytest.approx(7 * 60, rel=0.3)
    assert many.wait_p90_s < 12.5 * 3600


def test_a_limit_of_nothing_is_refused() -> None:
    """The message names the rule."""
    with pytest.raises(InvalidValue, match="allocations"):
        run_queue(0)
