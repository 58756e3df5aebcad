"""When a simulated pack has used up its events while its jobs come and go."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.pack import PackJobs, PackModel
from hpcpanda.simulate.work.workload import EventWork, JobWork, RangeCosts

CORES = 4


def pack(*, events: int, jobs: int, slots: int = 3, startup_s: float = 2.0) -> PackModel:
    """A pack that begins at 0, with events of 1 s and jobs of 8 s."""
    work = JobWork(cores=1, memory_mb=100, median_s=8.0, p90_s=8.0, limit_s=12.0)
    held = PackJobs(work, slots=slots, begins=startup_s, deadline=1000.0)
    held.give(jobs, 0.0, np.random.default_rng(1))
    costs = RangeCosts(EventWork(event_seconds=1.0, spread=0.5, target_seconds=1.0))
    made = PackModel(
        costs, 1.0, held, cores=CORES, begins=0.0, startup_s=startup_s, sync_s=0.1, account=Account()
    )
    made.give_events(events)
    return made


@pytest.mark.parametrize("jobs", [0, 1, 3, 5, 9])
@pytest.mark.parametrize("events", [1, 7, 8, 40, 200])
def test_events_last_until_the_cores_beside_the_jobs_have_done_them(events: int, jobs: int) -> None:
    """Shortly before that time there is work left, and at that time there is none, whatever jobs end in between."""
    dry = pack(events=events, jobs=jobs).dry_at()
    before, then = pack(events=events, jobs=jobs), pack(events=events, jobs=jobs)
    before.settle(dry - 0.01)
    then.settle(dry + 1e-6)
    assert 0 < before.work_left <= 0.01 * CORES + 1e-9
    assert then.work_left == pytest.approx(0.0, abs=1e-9)


def test_a_job_that_ends_brings_the_time_forward() -> None:
    """Three of four cores have jobs for 8 s: 40 core-seconds take 8 s on one core, then 8 s on four, not 40 s."""
    assert pack(events=40, jobs=3).dry_at() == pytest.approx(2.0 + 8.0 + 8.0)


def test_looking_in_between_changes_nothing() -> None:
    """The time is the same when the pack is settled on the way, in the start-up too."""
    one = pack(events=40, jobs=5)
    dry = one.dry_at()
    for now in (1.0, 5.0, 12.0):
        one.settle(now)
        assert one.dry_at() == pytest.approx(dry)
