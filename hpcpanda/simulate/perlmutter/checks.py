"""Whether the policy "as today" has the published losses, and which readings of them do not hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hpcpanda.simulate.perlmutter.jobs import HOUR
from hpcpanda.simulate.perlmutter.pilots import Fate, PilotRules
from hpcpanda.simulate.perlmutter.published import PUBLISHED
from hpcpanda.simulate.perlmutter.results import Check, PolicyResult, Reading
from hpcpanda.simulate.perlmutter.scenario import (
    AS_TODAY,
    WITH_FLOOR,
    Scenario,
    allocations_of,
    run_rules,
)


def published_checks(today: PolicyResult) -> tuple[Check, ...]:
    """The published numbers, and what "as today" gives for them."""
    hours = today.core_hours
    jobs = today.jobs_finished + today.jobs_killed
    killed = today.killed_of_run
    return (
        Check(
            what="killed, of finished and killed jobs",
            published=PUBLISHED.killed_of_run,
            simulated=killed,
            fitted=True,
        ),
        Check(
            what="killed, of all jobs",
            published=PUBLISHED.killed_of_all,
            simulated=killed * (1.0 - PUBLISHED.ended_otherwise),
            fitted=True,
        ),
        Check(
            what="core-hours that a killed job had run",
            published=PUBLISHED.hours_a_kill,
            simulated=hours.lost / today.jobs_killed,
            fitted=False,
        ),
        Check(
            what="core-hours of killed jobs, of those of finished and killed jobs",
            published=PUBLISHED.lost_share,
            simulated=hours.lost_of_work,
            fitted=False,
        ),
        Check(
            what="finished and killed jobs a pilot",
            published=PUBLISHED.jobs_a_pilot,
            simulated=jobs / (today.allocations * PUBLISHED.pilots),
            fitted=False,
        ),
        Check(
            what="core-hours of finished jobs, of all held",
            published=PUBLISHED.useful_of_held,
            simulated=hours.useful_of_held,
            fitted=False,
        ),
    )


def readings(scenario: Scenario, seed: int) -> tuple[Reading, ...]:
    """What could stand behind the published numbers, each simulated."""
    no_slow = replace(scenario, jobs=replace(scenario.jobs, slow_share=0.0))
    late = replace(WITH_FLOOR, floor_s=3.5 * HOUR)
    return (
        _reading("one job a pilot, some jobs longer than the wall", AS_TODAY, scenario, seed),
        _reading("one job a pilot, all jobs ordinary", AS_TODAY, no_slow, seed),
        _reading("second jobs up to 2.3 h, all jobs ordinary", WITH_FLOOR, no_slow, seed),
        _reading("second jobs up to 3.5 h, all jobs ordinary", late, no_slow, seed),
        _reading("second jobs up to 2.3 h, some jobs longer than the wall", WITH_FLOOR, scenario, seed),
    )


def _reading(what: str, rules: PilotRules, scenario: Scenario, seed: int) -> Reading:
    allocations = allocations_of(scenario.pilot_scale)
    run, _, _ = run_rules(rules, scenario, seed, allocations)
    finished = int(np.count_nonzero(run.fates == Fate.FINISHED))
    killed = int(np.count_nonzero((run.fates == Fate.KILLED) | (run.fates == Fate.NODE_LOST)))
    share = killed / (killed + finished)
    a_kill = run.core_hours.lost / max(1, killed)
    fits = (
        abs(share - PUBLISHED.killed_of_run) < 0.01
        and abs(run.core_hours.lost_of_work - PUBLISHED.lost_share) < 0.015
        and abs(a_kill - PUBLISHED.hours_a_kill) < 0.2
    )
    return Reading(
        what=what,
        killed_of_run=share,
        hours_a_kill=a_kill,
        lost_share=run.core_hours.lost_of_work,
        jobs_a_pilot=(killed + finished) / (allocations * PUBLISHED.pilots),
        fits=fits,
    )


def assumptions(scenario: Scenario) -> tuple[str, ...]:
    """The free parameters in sentences."""
    jobs = scenario.jobs
    return (
        f"{jobs.slow_share:.1%} of jobs are slow: fitted to {PUBLISHED.killed_of_run:.1%} killed of finished and killed.",
        f"A slow job costs {jobs.slow_factor:g} times an ordinary one: assumed, the wall hides it.",
        f"An event of a job is lognormal around the job's mean with sigma {jobs.event_sigma:g}: assumed.",
        f"Start-up of an allocation {scenario.startup_s:g} s for all policies: assumed.",
        f"{PUBLISHED.ended_otherwise:.0%} of jobs ended otherwise, as the published core-hours imply: left out.",
        "Truthful limits are exact, which no limit is: the best that policy can do.",
        f"Ranges of {scenario.range_s:g} s and at most {scenario.timeout_s:g} s, margin and grace time of site-configs/perlmutter-cpu.toml: chosen.",
    )
