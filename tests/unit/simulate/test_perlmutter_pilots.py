"""Pilots with jobs: what is taken, what is killed, and where each core-second goes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.simulate.perlmutter.jobs import HOUR, JobModel, lost_nodes
from hpcpanda.simulate.perlmutter.pilots import Fate, PilotRules, PilotShape, run_pilots
from hpcpanda.simulate.perlmutter.published import PUBLISHED

ONE_WAVE = PilotRules(name="one", what="")
TRUTHFUL = PilotRules(name="truthful", what="", truthful=True)
SHAPE = PilotShape(pilots=2, wall_s=100.0, startup_s=10.0)


def seconds(hours: float) -> float:
    return hours * HOUR


def test_one_wave_waits_for_its_straggler_and_the_wall_kills() -> None:
    """One pilot finishes at 40 s, the other is killed at 100 s: 60 s idle, 90 s lost, 30 s useful."""
    run = run_pilots(ONE_WAVE, SHAPE, np.array([30.0, 500.0, 1.0]), [math.inf])
    hours = run.core_hours
    assert seconds(hours.useful) == pytest.approx(30.0)
    assert seconds(hours.lost_wall) == pytest.approx(90.0)
    assert seconds(hours.idle) == pytest.approx(60.0)
    assert seconds(hours.startup) == pytest.approx(20.0)
    assert run.fates.tolist() == [Fate.FINISHED, Fate.KILLED, Fate.WAITING]
    assert run.half_idle == 1


def test_an_allocation_ends_with_its_last_pilot() -> None:
    """Nothing is held, or idle, after the last job has finished."""
    run = run_pilots(ONE_WAVE, SHAPE, np.array([30.0, 50.0, 1.0]), [math.inf])
    assert seconds(run.core_hours.held) == pytest.approx(2 * 60.0)


def test_a_pilot_takes_another_job_under_the_floor_only() -> None:
    """At 40 s a second job is taken with a floor of 41 s, and none with one of 40 s."""
    jobs = np.array([30.0, 80.0, 20.0, 20.0])
    with_floor = PilotRules(name="floor", what="", floor_s=41.0)
    assert run_pilots(with_floor, SHAPE, jobs, [math.inf]).fates.tolist()[2] == Fate.FINISHED
    without = PilotRules(name="floor", what="", floor_s=40.0)
    assert run_pilots(without, SHAPE, jobs, [math.inf]).fates.tolist()[2] == Fate.WAITING


def test_truthful_limits_pass_over_what_does_not_fit() -> None:
    """A job too long for what is left waits for the next allocation, one too long for any is set aside."""
    jobs = np.array([50.0, 95.0, 60.0, 45.0, 30.0, *[200.0] * 500])
    run = run_pilots(TRUTHFUL, SHAPE, jobs, [math.inf])
    assert run.fates.tolist()[:5] == [Fate.FINISHED, Fate.NEVER, Fate.FINISHED, Fate.WAITING, Fate.FINISHED]
    assert run.core_hours.lost == 0.0


def test_a_failing_node_kills_what_runs_on_it() -> None:
    """What had finished before is kept."""
    run = run_pilots(ONE_WAVE, SHAPE, np.array([30.0, 80.0, 1.0]), [70.0])
    assert run.fates.tolist()[:2] == [Fate.FINISHED, Fate.NODE_LOST]
    assert seconds(run.core_hours.lost_node) == pytest.approx(60.0)
    assert seconds(run.core_hours.held) == pytest.approx(2 * 70.0)


@given(
    seed=st.integers(0, 1000),
    floor=st.floats(0.0, 100.0),
    truthful=st.booleans(),
    lost=st.lists(st.one_of(st.just(math.inf), st.floats(0.0, 120.0)), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_finished_work_is_what_the_finished_jobs_took(
    seed: int, floor: float, truthful: bool, lost: list[float]
) -> None:
    """Useful core-hours are the times of the finished jobs, and no allocation is held beyond its wall or its node."""
    jobs = np.random.default_rng(seed).uniform(1.0, 150.0, 3000)
    rules = PilotRules(name="p", what="", floor_s=floor, truthful=truthful)
    run = run_pilots(rules, SHAPE, jobs, lost)
    assert seconds(run.core_hours.useful) == pytest.approx(jobs[run.fates == Fate.FINISHED].sum())
    assert seconds(run.core_hours.held) <= 2 * sum(min(100.0, at) for at in lost) + 1e-6
    if truthful:
        assert run.core_hours.lost_wall == 0.0


def test_jobs_have_the_published_times() -> None:
    """Ordinary jobs have the published median and 90th percentile; the events of a job take its time together."""
    model = JobModel(slow_share=0.0)
    random = np.random.default_rng(1)
    times = model.seconds(100_000, random)
    assert np.median(times) / HOUR == pytest.approx(1.93, rel=0.01)
    assert np.quantile(times, 0.9) / HOUR == pytest.approx(2.49, rel=0.01)
    costs = model.costs(times[:50], random)
    assert costs.shape == (50, PUBLISHED.events_a_job)
    assert costs.sum(axis=1) == pytest.approx(times[:50], rel=1e-4)


def test_nodes_are_lost_as_often_as_said() -> None:
    """The share is kept to the nearest allocation, and a share above nothing loses at least one."""
    random = np.random.default_rng(1)
    assert np.isfinite(lost_nodes(1000, 0.01, 100.0, random)).sum() == 10
    assert np.isfinite(lost_nodes(5, 0.01, 100.0, random)).sum() == 1
    assert np.isfinite(lost_nodes(5, 0.0, 100.0, random)).sum() == 0


def test_the_published_numbers_are_understood() -> None:
    """9% of jobs, 22% of core-hours, 490 000 core-hours, nearly all of an allocation for each killed job."""
    assert PUBLISHED.killed_of_all == pytest.approx(0.09, abs=0.005)
    assert PUBLISHED.lost_share == pytest.approx(0.22, abs=0.005)
    assert PUBLISHED.killed_hours + PUBLISHED.finished_hours == pytest.approx(490_000)
    assert 0.9 * PUBLISHED.wall < PUBLISHED.hours_a_kill < PUBLISHED.wall
    assert PUBLISHED.jobs_a_pilot < 1.0
