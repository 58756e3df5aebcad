"""What is known of a site: priors, promises and how they held, forgetting, bounds of room."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.prediction.decay import HALF_LIFE_S
from hpcpanda.prediction.hazard import ASSUMED_RATE
from hpcpanda.prediction.knowledge import MOST_PARTITIONS, MOST_TASKS, Knowledge
from hpcpanda.prediction.tasks import JobEnd, TaskWords

NOW = 1_790_000_000.0
DAY = 86_400.0
WORDS = TaskWords(walltime_s=1000.0, memory_mb=2000.0, event_seconds=5.0)


def met(words: TaskWords = WORDS) -> Knowledge:
    knowledge = Knowledge.fresh(NOW)
    knowledge.meet(1, words, NOW)
    return knowledge


def test_nothing_is_known_of_a_task_that_was_not_met():
    """No number is made up."""
    knowledge = Knowledge.fresh(NOW)
    assert knowledge.event_seconds(1, NOW) is None
    assert knowledge.job_seconds(1, NOW) is None
    assert knowledge.memory_mb(1, NOW) is None
    assert knowledge.reservations(1) is None


def test_the_users_words_count_until_something_is_seen():
    """The guess of an event's cost, and the limits of time and memory."""
    knowledge = met()
    assert knowledge.event_seconds(1, NOW) == 5.0
    assert knowledge.job_seconds(1, NOW) == 1000.0
    assert knowledge.memory_mb(1, NOW) == 2000.0


def test_the_guess_gives_way_to_what_is_measured():
    """A guess of 5 s beside 0.1 s seen: three events' worth of it."""
    knowledge = met()
    knowledge.saw_events(1, [10, 20], [1.0, 2.0], NOW)
    assert knowledge.event_seconds(1, NOW) == pytest.approx((3 * 5.0 + 3.0) / 33)
    knowledge.saw_events(1, [100_000], [10_000.0], NOW)
    assert knowledge.event_seconds(1, NOW) == pytest.approx(0.1, rel=0.01)


def test_scouts_first():
    """Three jobs of 100 s leave the limit of 1000 s; a fourth brings it down, a hundred to a little above 100 s."""
    knowledge = met()
    found = []
    for count in (3, 1, 96):
        knowledge.saw_jobs(1, [100.0] * count, NOW)
        found.append(knowledge.job_seconds(1, NOW))
    assert found[0] == 1000.0
    assert found[1] is not None
    assert 100.0 < found[1] < 1000.0
    assert found[2] == pytest.approx(100.0, rel=0.03)


def test_no_prediction_exceeds_the_limit():
    """However wild the times: what takes longer is killed there."""
    knowledge = met(TaskWords(walltime_s=120.0))
    knowledge.saw_jobs(1, [1.0, 10.0, 100.0, 119.0], NOW)
    assert knowledge.job_seconds(1, NOW) == 120.0


def test_killed_jobs_keep_the_prediction_at_the_limit():
    """A fifth of the jobs reach it: at a risk of a tenth nothing less can be promised, at a half it can."""
    knowledge = met()
    knowledge.saw_jobs(1, [100.0] * 80, NOW)
    knowledge.saw_jobs(1, [1000.0] * 20, NOW, JobEnd.LIMIT)
    assert knowledge.job_seconds(1, NOW) == 1000.0
    assert knowledge.job_seconds(1, NOW, 0.5) == pytest.approx(100.0, rel=0.03)


def test_jobs_that_fail_early_make_the_rest_no_faster():
    """Half of the jobs crash after a second; the other half takes 500 s, and so will a whole one."""
    knowledge = met()
    knowledge.saw_jobs(1, [1.0] * 50, NOW, JobEnd.FAILED)
    knowledge.saw_jobs(1, [500.0] * 50, NOW)
    found = knowledge.job_seconds(1, NOW, 0.4)
    assert found == pytest.approx(500.0, rel=0.03)


def test_memory_is_predicted_alike():
    """Its limit until it was seen, then what was seen; a job killed for it counts as larger."""
    knowledge = met()
    for _ in range(50):
        knowledge.saw_memory(1, 300.0, NOW)
    assert knowledge.memory_mb(1, NOW) == pytest.approx(300.0, rel=0.03)
    for _ in range(20):
        knowledge.saw_memory(1, 2000.0, NOW, JobEnd.LIMIT)
    assert knowledge.memory_mb(1, NOW) == 2000.0


def test_promises_are_held_against_what_comes():
    """Jobs of one kind keep them, then jobs become slower: the share of overruns tells."""
    rng = np.random.default_rng(8)
    knowledge = met(TaskWords(walltime_s=100_000.0))
    for _ in range(50):
        knowledge.saw_jobs(1, rng.lognormal(5, 0.5, 40), NOW)
    known = knowledge.tasks[1].calibration
    assert known.promised == 49 * 40
    assert known.exceeded_share is not None
    assert 0.05 < known.exceeded_share < 0.1
    assert known.used_share is not None
    assert 0.4 < known.used_share < 0.7
    knowledge.saw_jobs(1, rng.lognormal(7, 0.5, 2000), NOW)
    assert known.exceeded_share is not None
    assert known.exceeded_share > 0.4
    assert knowledge.calibration == known


def test_the_users_limit_is_no_promise_of_ours():
    """Before there are scouts, and where the limit is the tighter, nothing is counted."""
    knowledge = met(TaskWords(walltime_s=50.0))
    knowledge.saw_jobs(1, [50.0] * 100, NOW)
    knowledge.saw_jobs(1, [50.0] * 100, NOW)
    assert knowledge.calibration.promised == 0


def test_a_killed_job_counts_as_an_overrun():
    """It took longer than promised, by how much nobody knows."""
    knowledge = met()
    knowledge.saw_jobs(1, [100.0] * 50, NOW)
    knowledge.saw_jobs(1, [1000.0], NOW, JobEnd.LIMIT)
    assert (knowledge.calibration.promised, knowledge.calibration.exceeded) == (1, 1)


def test_the_old_is_forgotten():
    """After five half-lives a machine twice as fast is believed, although ten times as many old jobs were seen."""
    knowledge = met()
    knowledge.saw_jobs(1, [200.0] * 1000, NOW)
    knowledge.saw_events(1, [1000], [2000.0], NOW)
    later = NOW + 9 * HALF_LIFE_S
    knowledge.saw_jobs(1, [100.0] * 100, later)
    knowledge.saw_events(1, [100], [100.0], later)
    assert knowledge.job_seconds(1, later) == pytest.approx(100.0, rel=0.03)
    assert knowledge.event_seconds(1, later) == pytest.approx(
        (3 * 5.0 + 100 + 2000 / 512) / (103 + 1000 / 512)
    )


def test_a_long_silence_brings_the_limit_back():
    """Twenty jobs of half a year ago are no scouts any more."""
    knowledge = met()
    knowledge.saw_jobs(1, [100.0] * 20, NOW)
    assert knowledge.job_seconds(1, NOW) != 1000.0
    assert knowledge.job_seconds(1, NOW + 180 * DAY) == 1000.0


def test_weights_never_run_away():
    """Ten years of jobs, a day at a time: predictions stay right, and no weight becomes large."""
    knowledge = met()
    for day in range(3650):
        knowledge.saw_jobs(1, [100.0, 110.0], NOW + day * DAY)
        knowledge.saw_held(3, NOW + day * DAY, NOW + day * DAY + 3600.0)
        knowledge.saw_start_up(7.0, NOW + day * DAY)
        knowledge.saw_allocation(1, 3600.0, 60.0, NOW + day * DAY)
    end = NOW + 3650 * DAY
    assert knowledge.job_seconds(1, end) == pytest.approx(110.0, rel=0.03)
    assert max(knowledge.tasks[1].walltimes.ended.weights.values()) < 1e6
    forecast = knowledge.forecast(end)
    assert forecast.startup_s == pytest.approx(7.0, rel=0.02)
    assert forecast.queue_waits[0].seen == pytest.approx(HALF_LIFE_S / DAY / math.log(2), rel=0.05)
    assert forecast.preemptions_per_node_hour < 2e-4


def test_a_clock_that_jumps_breaks_nothing():
    """A century forward, and two back."""
    knowledge = met()
    knowledge.saw_jobs(1, [100.0] * 50, NOW)
    for at in (NOW + 36_500 * DAY, NOW - 36_500 * DAY, NOW):
        knowledge.saw_jobs(1, [100.0] * 50, at)
        knowledge.saw_held(1, at - 60.0, at)
        knowledge.saw_start_up(5.0, at)
        knowledge.saw_allocation(1, 60.0, 5.0, at)
        seconds = knowledge.job_seconds(1, at)
        assert seconds is not None
        assert 100.0 <= seconds <= 1000.0
        assert math.isfinite(knowledge.forecast(at).preemptions_per_node_hour)


def test_a_fresh_site_is_the_default_forecast_but_for_the_assumed_hazard():
    """No start-up and no waits are made up."""
    forecast = Knowledge.fresh(NOW).forecast(NOW)
    assert (forecast.startup_s, forecast.queue_waits) == (0.0, ())
    assert 0 < forecast.preemptions_per_node_hour < 1e-4
    assert forecast.survival(1000, 4 * 3600.0) > 0.95


def test_hazards_are_told_by_partition():
    """One in which allocations are preempted every node-hour beside one in which none was."""
    knowledge = Knowledge.fresh(NOW)
    for hour in range(200):
        at = NOW + hour * 3600.0
        for partition in ("spot", "regular"):
            knowledge.saw_held(1, at, at + 3600.0, partition)
        knowledge.saw_preemption(at + 3600.0, "spot")
    end = NOW + 200 * 3600.0
    assert knowledge.forecast(end, partition="spot").preemptions_per_node_hour == pytest.approx(1.0, rel=0.2)
    assert knowledge.forecast(end, partition="regular").preemptions_per_node_hour < 1e-3
    assert knowledge.forecast(end, partition="other").preemptions_per_node_hour == pytest.approx(ASSUMED_RATE)


def test_the_task_unseen_for_longest_is_forgotten():
    """One more than the stated number of tasks: those seen since are kept."""
    knowledge = Knowledge.fresh(NOW)
    for task in range(MOST_TASKS):
        knowledge.saw_events(task, [1], [1.0], NOW + task)
    knowledge.saw_jobs(0, [1.0], NOW + MOST_TASKS)
    knowledge.saw_events(MOST_TASKS, [1], [1.0], NOW + MOST_TASKS)
    assert len(knowledge.tasks) == MOST_TASKS
    assert 0 in knowledge.tasks
    assert 1 not in knowledge.tasks


def test_partitions_are_bounded():
    """However many names come."""
    knowledge = Knowledge.fresh(NOW)
    for number in range(MOST_PARTITIONS + 10):
        knowledge.saw_preemption(NOW, f"q{number}")
    assert len(knowledge.hazards) == MOST_PARTITIONS


def test_the_requests_that_waste_least_end_at_the_limit():
    """Most jobs take 100 s, a tenth 900 s: ask for the former first."""
    knowledge = met()
    knowledge.saw_jobs(1, [100.0] * 900 + [900.0] * 100, NOW)
    plan = knowledge.reservations(1)
    assert plan is not None
    assert plan.seconds[0] == pytest.approx(100.0, rel=0.02)
    assert plan.seconds[-1] == 1000.0


@pytest.mark.parametrize("seconds", [[-1.0], [math.nan], [1.0, math.inf]])
def test_times_that_are_none_are_refused_and_change_nothing(seconds: list[float]):
    """The task stays as it was."""
    knowledge = met()
    with pytest.raises(InvalidValue):
        knowledge.saw_jobs(1, seconds, NOW)
    with pytest.raises(InvalidValue):
        knowledge.saw_events(1, [1] * len(seconds), seconds, NOW)
    with pytest.raises(InvalidValue):
        knowledge.saw_events(1, [0], [1.0], NOW)
    assert knowledge == met()
