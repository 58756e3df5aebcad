"""Policies over one trace: the host's machine is run anew for each, and what each made of the idle nodes is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import Site
from hpcpanda.domain.validation import require_between
from hpcpanda.simulate.machines.easy import EasyMachine
from hpcpanda.simulate.machines.host_alone import HostSchedule, host_schedule
from hpcpanda.simulate.machines.host_machine import HostMachine, MachineOptions
from hpcpanda.simulate.machines.idle import Holes, IdleProfile, holes, idle_profile
from hpcpanda.simulate.machines.preempting import PreemptingMachine
from hpcpanda.simulate.machines.truthful import TruthfulMachine
from hpcpanda.simulate.policies.pilots import FixedPilots, HyperQueueAllocation, TitanBrokers
from hpcpanda.simulate.policies.policy import Policy
from hpcpanda.simulate.results import HarvestFigures, HarvestSeries, HostFigures, SimulationResult
from hpcpanda.simulate.simulated_edge.edge import SimulatedEdge
from hpcpanda.simulate.trace import HostTrace
from hpcpanda.simulate.work.account import quantile, union_steps
from hpcpanda.simulate.work.workload import Workload

_HOUR = 3600.0

Progress = Callable[[str, float], None]
"""Called now and then with the name of the policy and how much of its simulation is done, 0..1."""


class PolicyName(StrEnum):
    """Policies that can be simulated."""

    OURS = "ours"
    OURS_WITHOUT_EVENTS = "ours-without-events"
    FIXED_PILOTS = "fixed-pilots"
    TITAN = "titan"
    HYPERQUEUE = "hyperqueue"


ALL_POLICIES = tuple(PolicyName)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationOptions:
    """What is simulated."""

    windows: Literal["truthful", "estimated"] = "truthful"
    """``truthful``: the host's schedule is fixed, and windows are what it really leaves idle. ``estimated``: the host's
    jobs and ours are scheduled by EASY, which knows requested walltimes only."""
    preemptible: bool = False
    """The host preempts us when it needs the nodes; with estimated windows only."""
    recorded: bool = True
    """With truthful windows: the starts that the trace records, where it does; else EASY schedules the host's jobs."""
    workload: Workload = field(default_factory=Workload)
    cycle_s: float = 10.0
    """The batch system looks at requests once in so many seconds."""
    failures_per_node_hour: float = 0.0
    shortest_hole_s: float = 300.0
    """Idle time in shorter holes does not count as harvestable."""
    seed: int = 0
    series: bool = True
    """Keep what pictures are drawn from."""

    def __post_init__(self) -> None:
        require_between("shortest_hole_s", self.shortest_hole_s, 0.0, 1e7)
        require_between("seed", self.seed, 0, 2**63)
        if self.preemptible and self.windows == "truthful":
            raise InvalidValue("preemptible", "needs estimated windows: who knows the future preempts nobody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The host alone: what every policy is measured against."""

    trace: HostTrace
    schedule: HostSchedule
    idle: IdleProfile
    span: tuple[float, float]
    holes: Holes

    @classmethod
    def of(cls, trace: HostTrace, options: SimulationOptions) -> Host:
        """Schedule the host's jobs without us."""
        known = options.windows == "truthful" and options.recorded and not np.isnan(trace.start).any()
        schedule = host_schedule(trace, backfill="recorded" if known else "easy")
        idle = idle_profile(trace, schedule)
        span = schedule.span(trace)
        found = holes(idle, span, shortest_s=options.shortest_hole_s)
        return cls(trace=trace, schedule=schedule, idle=idle, span=span, holes=found)

    def machine(self, site: Site, options: SimulationOptions) -> HostMachine:
        """A machine on which nothing of ours has run yet."""
        manners = MachineOptions(
            cycle_s=options.cycle_s,
            grace_s=site.allocation.grace_s,
            failures_per_node_hour=options.failures_per_node_hour,
            horizon_s=max(86_400.0, 1.1 * site.allocation.walltime_s),
            seed=options.seed,
        )
        if options.windows == "truthful":
            return TruthfulMachine(self.trace, self.schedule, manners)
        return (PreemptingMachine if options.preemptible else EasyMachine)(self.trace, manners)


def simulate(
    trace: HostTrace,
    site: Site,
    *,
    policies: Sequence[PolicyName] = ALL_POLICIES,
    options: SimulationOptions | None = None,
    progress: Progress | None = None,
) -> SimulationResult:
    """Let policies harvest what a host leaves idle, one after the other, each on a machine of its own.

    Args:
        trace: the host's jobs.
        site: the machine as our edge sees it: node size, limits, margins. The nodes are the trace's.
        policies: which.
        options: what is simulated.
        progress: told how far it is.

    Raises:
        InvalidValue: the site allows more nodes than the trace's machine has, or the jobs do not fit its nodes.
    """
    options = options or SimulationOptions()
    begun = time.perf_counter()
    _require_fit(trace, site, options.workload)
    site = replace(site, scheduler=replace(site.scheduler, queue=None))
    host = Host.of(trace, options)
    figures: list[HarvestFigures] = []
    series: dict[str, HarvestSeries] = {}
    for name in policies:
        machine = host.machine(site, options)
        policy = make_policy(name, site, options)
        run(machine, policy, host.span, progress)
        figures.append(harvest_figures(policy, machine, host, site, options))
        if options.series:
            series[policy.name] = _series(policy, host)
    return SimulationResult(
        source=trace.source,
        site=site.name,
        seed=options.seed,
        wall_s=time.perf_counter() - begun,
        flaws=trace.flaws,
        policies=tuple(figures),
        series=series,
    )


def make_policy(name: PolicyName, site: Site, options: SimulationOptions) -> Policy:
    """A policy that has done nothing yet."""
    rng = np.random.default_rng(options.seed)
    work = options.workload
    match name:
        case PolicyName.OURS:
            return SimulatedEdge(site, work, rng)
        case PolicyName.OURS_WITHOUT_EVENTS:
            return SimulatedEdge(site, work, rng, with_events=False)
        case PolicyName.FIXED_PILOTS:
            return FixedPilots(site, work, rng)
        case PolicyName.TITAN:
            return TitanBrokers(site, work, rng)
        case PolicyName.HYPERQUEUE:
            return HyperQueueAllocation(site, work, rng)


def run(
    machine: HostMachine, policy: Policy, span: tuple[float, float], progress: Progress | None = None
) -> None:
    """One policy on one machine, from the begin of a span of time to its end."""
    begin, end = span
    machine.advance(begin)
    told = 0.0
    while machine.now < end:
        for event in machine.advance(min(policy.due(machine), end)):
            policy.heard(event)
        policy.act(machine)
        done = (machine.now - begin) / (end - begin)
        if progress is not None and (done >= told or done >= 1.0):
            progress(policy.name, done)
            told = done + 0.01
    policy.close(machine)


def harvest_figures(
    policy: Policy, machine: HostMachine, host: Host, site: Site, options: SimulationOptions
) -> HarvestFigures:
    """What a policy that is over has made of the idle nodes."""
    account = policy.account
    core_hours = site.nodes.cores * _HOUR
    held, displaced = _held(policy, host)
    useful = account.useful / core_hours
    return HarvestFigures(
        policy=policy.name,
        harvestable=host.holes.node_seconds / _HOUR,
        shortest_hole_s=options.shortest_hole_s,
        held=held / _HOUR,
        displaced=displaced / _HOUR,
        useful=useful,
        lost=account.lost / core_hours,
        overhead=(account.startup + account.drain + account.unfilled) / core_hours,
        startup=account.startup / core_hours,
        drain=account.drain / core_hours,
        unfilled=account.unfilled / core_hours,
        requests=account.requests,
        started=len(account.waits),
        preempted=account.preempted,
        killed_at_wall=account.killed_at_wall,
        failed=account.failed,
        events_finished=account.events,
        jobs_finished=account.jobs,
        queue_wait_median_s=quantile(account.waits, 0.5),
        queue_wait_p90_s=quantile(account.waits, 0.9),
        turnaround_median_s=account.turnaround_median(),
        host=_host_figures(host, machine, useful),
    )


def _held(policy: Policy, host: Host) -> tuple[float, float]:
    """Node-seconds that we held: on nodes idle without us, and on others."""
    times, ours = union_steps(policy.account.spans)
    grid = np.unique(np.concatenate([times, host.idle.times, np.array(host.span)]))
    grid = grid[(grid >= host.span[0]) & (grid <= host.span[1])]
    lengths = np.diff(grid)
    mine = _values(times, ours, grid[:-1])
    idle = host.idle.idle[np.maximum(np.searchsorted(host.idle.times, grid[:-1], side="right") - 1, 0)]
    return float(np.minimum(mine, idle) @ lengths), float(np.maximum(mine - idle, 0.0) @ lengths)


def _values(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A step function that is 0 before its first time."""
    places = np.searchsorted(times, at, side="right") - 1
    return np.where(places >= 0, values[np.maximum(places, 0)], 0.0)


def _host_figures(host: Host, machine: HostMachine, useful: float) -> HostFigures:
    begin, end = host.span
    total = (end - begin) * host.trace.machine_nodes / _HOUR
    busy = total - host.idle.node_seconds(begin, end) / _HOUR
    starts = machine.finish().start
    delays = np.maximum(0.0, np.nan_to_num(starts - host.schedule.start))
    delays[delays < 1e-6] = 0.0
    return HostFigures(
        jobs=len(host.trace),
        nodes=host.trace.machine_nodes,
        days=(end - begin) / 86_400,
        utilisation_before=busy / total,
        utilisation_after=(busy + useful) / total,
        delayed_jobs=int((delays > 0).sum()),
        delay_mean_s=float(delays.mean()),
        delay_max_s=float(delays.max(initial=0.0)),
    )


def _series(policy: Policy, host: Host) -> HarvestSeries:
    times, ours = union_steps(policy.account.spans)
    begin, end = host.span
    grid = np.unique(np.concatenate([times, host.idle.times, np.array(host.span)]))
    grid = grid[(grid >= begin) & (grid <= end)]
    idle = host.idle.idle[np.maximum(np.searchsorted(host.idle.times, grid, side="right") - 1, 0)]
    return HarvestSeries(
        times=grid,
        host=(host.trace.machine_nodes - idle).astype(np.float64),
        ours=_values(times, ours, grid),
        hole_lengths=np.repeat(host.holes.length, host.holes.width),
        gantt=tuple(policy.account.spans),
    )


def _require_fit(trace: HostTrace, site: Site, workload: Workload) -> None:
    if site.node_limit > trace.machine_nodes:
        raise InvalidValue(
            "site",
            f"{site.name} may hold {site.node_limit} nodes; the trace's machine has {trace.machine_nodes}",
        )
    if workload.jobs.cores > site.nodes.cores or workload.jobs.memory_mb > site.nodes.memory_mb:
        raise InvalidValue("jobs", f"one does not fit a node of {site.name}")
