"""The Perlmutter preset: ePIC's production as it is today, with truthful limits, and as a stream of events.

All policies have the same allocations, jobs and events, and lose the same share of nodes. Queue waits are the same for
all of them (requests are alike: one node for 4.05 h), so they change no ratio; events a day are stated at the published
number of allocations a day, which those waits allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from hpcpanda.domain.validation import require_between
from hpcpanda.simulate.perlmutter.checks import assumptions, published_checks, readings
from hpcpanda.simulate.perlmutter.jobs import Costs, lost_nodes
from hpcpanda.simulate.perlmutter.pilots import Fate, PilotRules, PilotRun
from hpcpanda.simulate.perlmutter.published import PUBLISHED
from hpcpanda.simulate.perlmutter.results import Bias, PerlmutterResult, PolicyResult
from hpcpanda.simulate.perlmutter.scenario import (
    AS_TODAY,
    TRUTHFUL,
    WITH_FLOOR,
    Scenario,
    allocations_of,
    run_rules,
)
from hpcpanda.simulate.perlmutter.stream import StreamRun, event_task, perlmutter_site, run_stream
from hpcpanda.simulate.trace import Floats

OURS: Final = "hpcpanda"

_BIAS_JOBS: Final = 1_000
"""Jobs whose events are compared, of policies with jobs."""


def run_perlmutter(
    *,
    seed: int = 1,
    scale: float = 0.01,
    progress: Callable[[float], None] | None = None,
    scenario: Scenario | None = None,
) -> PerlmutterResult:
    """Simulate all policies.

    Args:
        seed: of all randomness; the same seed, scale and scenario give the same result.
        scale: share of the published 2941 allocations that ours is given work for; 0.01 takes one to two minutes
            and 0.3 GB.
        progress: is told the share done, 0..1.
        scenario: free parameters; the documented ones when not said.

    Raises:
        InvalidValue: ``scale`` is outside 0.0005..0.1.
    """
    require_between("scale", scale, 0.0005, 0.1)
    scenario = scenario or Scenario()
    tell = progress or (lambda _: None)
    today, *others = (_pilots(rules, scenario, seed) for rules in (AS_TODAY, WITH_FLOOR, TRUTHFUL))
    found = readings(scenario, seed)
    tell(0.1)
    ours = _stream(scenario, seed, scale, lambda share: tell(0.1 + 0.9 * share))
    return PerlmutterResult(
        seed=seed,
        scale=scale,
        policies=(today, *others, _of_stream(ours)),
        streaming=ours.streaming,
        checks=published_checks(today),
        readings=found,
        assumptions=assumptions(scenario),
    )


def _pilots(rules: PilotRules, scenario: Scenario, seed: int) -> PolicyResult:
    allocations = allocations_of(scenario.pilot_scale)
    run, jobs, lost = run_rules(rules, scenario, seed, allocations)
    fates = run.fates
    finished = int(np.count_nonzero(fates == Fate.FINISHED))
    events = finished * scenario.jobs.events
    return PolicyResult(
        policy=rules.name,
        what=rules.what,
        allocations=allocations,
        lost_nodes=lost,
        core_hours=run.core_hours,
        jobs_finished=finished,
        jobs_killed=int(np.count_nonzero((fates == Fate.KILLED) | (fates == Fate.NODE_LOST))),
        jobs_never=int(np.count_nonzero(fates == Fate.NEVER)),
        events_finished=events,
        events_a_day=_a_day(events, allocations),
        useful_a_day=_a_day(run.core_hours.useful, allocations),
        half_idle=run.half_idle / allocations,
        bias=_bias(run, jobs, scenario, seed),
    )


def _bias(run: PilotRun, jobs: Floats, scenario: Scenario, seed: int) -> Bias:
    """Events of jobs whose fate is known, against those of the jobs that finished."""
    random = np.random.default_rng((seed, 2))
    decided = np.flatnonzero(run.fates != Fate.WAITING)[:_BIAS_JOBS]
    costs = scenario.jobs.costs(jobs[decided], random)
    finished: Costs = costs[run.fates[decided] == Fate.FINISHED]
    return Bias.between(costs.ravel(), finished.ravel())


def _a_day(events: float, allocations: float) -> float:
    return events / allocations * PUBLISHED.allocations / PUBLISHED.days


def _stream(scenario: Scenario, seed: int, scale: float, progress: Callable[[float], None]) -> StreamRun:
    """Ours, over a task of as much work as so many allocations hold."""
    random = np.random.default_rng((seed, 3))
    site = perlmutter_site()
    allocations = allocations_of(scale)
    room = site.allocation.walltime_s - site.allocation.margin_s - scenario.startup_s
    count = round(allocations * site.nodes.cores * room / scenario.jobs.mean_s)
    costs = scenario.jobs.costs(scenario.jobs.seconds(count, random), random).ravel()
    if scenario.endless_s:
        costs[random.integers(len(costs) // 2)] = scenario.endless_s
    lost = lost_nodes(allocations, scenario.lost_node_share, site.allocation.walltime_s, random)
    return run_stream(
        costs,
        site=site,
        startup_s=scenario.startup_s,
        spec=event_task(len(costs), range_s=scenario.range_s, timeout_s=scenario.timeout_s),
        lost_at=lambda number: float(lost[number]) if number < allocations else np.inf,
        progress=progress,
    )


def _of_stream(run: StreamRun) -> PolicyResult:
    *whole, last = run.accounts
    full = max((a.end for a in run.accounts), default=1.0)
    allocations = len(whole) + last.end / full
    return PolicyResult(
        policy=OURS,
        what="events are streamed to every core, up to a margin before the wall; what is not done goes back",
        allocations=allocations,
        lost_nodes=run.lost_nodes,
        core_hours=run.core_hours,
        jobs_finished=0,
        jobs_killed=0,
        jobs_never=0,
        events_finished=run.done,
        events_a_day=_a_day(run.done, allocations),
        useful_a_day=_a_day(run.core_hours.useful, allocations),
        half_idle=sum(a.half_idle for a in run.accounts) / len(run.accounts),
        bias=run.bias,
        failed=run.failed,
    )
