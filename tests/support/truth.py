"""One scenario for the simulator and for a real Slurm: the host's jobs, our work, and what both made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from hpcpanda.domain.site import Site
from hpcpanda.simulate.harvest import (
    Host,
    PolicyName,
    SimulationOptions,
    harvest_figures,
    make_policy,
    run,
)
from hpcpanda.simulate.trace import HostTrace
from hpcpanda.simulate.work.workload import EventWork, JobWork, Workload

_LAUNCH_S: Final = 0.03
"""How much longer than its command a host job has its nodes, by the controller's log."""
EVENTS: Final = EventWork(event_seconds=0.25, spread=0.5, target_seconds=1.0)
JOBS: Final = JobWork(cores=1, memory_mb=100, median_s=8.0, p90_s=8.0, limit_s=12.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostJob:
    """A job of the host; seconds from the begin of the scenario."""

    at: float
    nodes: int
    run_s: float
    limit_minutes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens on a small machine in some minutes."""

    seconds: float
    """All of it; what is finished or held later does not count."""
    host: tuple[HostJob, ...]
    preempts: bool
    """The host's jobs preempt ours; otherwise ours have to fit beside them."""
    work_at: float = 0.0
    """When our work is submitted; host jobs of time 0 are there before."""
    nodes: int = 4
    cores: int = 2
    events: EventWork = EVENTS
    jobs: JobWork = JOBS
    job_count: int = 16

    @property
    def trace(self) -> HostTrace:
        """The host's jobs for the simulator."""
        return HostTrace(
            submit=np.array([j.at for j in self.host]),
            nodes=np.array([j.nodes for j in self.host], dtype=np.int64),
            run=np.array([j.run_s + _LAUNCH_S for j in self.host]),
            requested=np.array([60.0 * j.limit_minutes for j in self.host]),
            start=np.full(len(self.host), np.nan),
            machine_nodes=self.nodes,
            epoch=0.0,
            source="a drawn scenario",
        )

    @property
    def site_tables(self) -> dict[str, dict[str, float | bool]]:
        """What the site file says besides what :class:`tests.support.slurm_services.SlurmServices` sets."""
        return {"queue": {"preemptible": self.preempts}, "limits": {"allocations": 3}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What became of our work, in reality or in the simulator."""

    held: float
    """Node-seconds."""
    useful: float
    """Core-seconds: events finished, and jobs, times their mean cost."""
    lost: float
    """Core-seconds of what was begun and not finished."""
    events: int
    jobs: int
    allocations: int
    """Started."""
    preempted: int
    startup_s: float
    """From the begin of an allocation to its first event on a core, in the mean over cores."""
    queue_s: float
    """From request to start, in the median."""
    host: tuple[float, ...]
    """Starts of the host's jobs; NaN where one did not start."""


def drawn_host(seed: int, *, seconds: float, every_s: float, nodes: int = 4) -> tuple[HostJob, ...]:
    """Jobs whose gaps are exponential, whose run times are lognormal (50 s in the median), many of one node and some of all."""
    rng = np.random.default_rng(seed)
    found: list[HostJob] = []
    at = float(rng.uniform(8.0, 16.0))
    while at < seconds - 5:
        run_s = round(float(np.clip(rng.lognormal(math.log(50.0), 0.5), 15.0, 150.0)), 1)
        limit = math.ceil((run_s + 5.0) * rng.uniform(1.0, 2.5) / 60.0)
        wide = int(rng.choice(np.arange(1, nodes + 1), p=[0.45, 0.3, *[0.25 / (nodes - 2)] * (nodes - 2)]))
        found.append(HostJob(at=round(at, 1), nodes=wide, run_s=run_s, limit_minutes=limit))
        at += float(rng.exponential(every_s))
    return tuple(found)


def host_with_holes() -> tuple[HostJob, ...]:
    """Jobs that are all there at the begin, and end just before their limits: one node is idle for 4 minutes, later two for 3."""
    shapes = ((3, 4, 236.0), (4, 1, 50.0), (2, 3, 176.0), (4, 1, 50.0))
    return tuple(HostJob(at=0.0, nodes=n, run_s=run_s, limit_minutes=minutes) for n, minutes, run_s in shapes)


def simulated(
    scenario: Scenario,
    site: Site,
    *,
    startup_s: float,
    cycle_s: float = 1.0,
    seed: int = 1,
) -> Harvest:
    """The scenario in the simulator.

    Args:
        scenario: what happens.
        site: that of the real edge, read from the same file.
        startup_s: as measured in reality.
        cycle_s: how often the batch system looks at requests.
        seed: of what the simulator draws.
    """
    site = replace(site, scheduler=replace(site.scheduler, queue=None))
    core_s = scenario.nodes * scenario.cores * scenario.seconds
    work = Workload(
        events=scenario.events,
        jobs=scenario.jobs,
        job_share=scenario.job_count * scenario.jobs.median_s / core_s,
        startup_s=startup_s,
    )
    options = SimulationOptions(
        windows="estimated",
        preemptible=scenario.preempts,
        workload=work,
        cycle_s=cycle_s,
        shortest_hole_s=0.0,
        seed=seed,
    )
    host = replace(Host.of(scenario.trace, options), span=(scenario.work_at, scenario.seconds))
    machine = host.machine(site, options)
    policy = make_policy(PolicyName.OURS, site, options)
    run(machine, policy, host.span)
    figures = harvest_figures(policy, machine, host, site, options)
    return Harvest(
        held=(figures.held + figures.displaced) * 3600,
        useful=figures.useful * 3600 * site.nodes.cores,
        lost=figures.lost * 3600 * site.nodes.cores,
        events=figures.events_finished,
        jobs=figures.jobs_finished,
        allocations=figures.started,
        preempted=figures.preempted,
        startup_s=startup_s,
        queue_s=figures.queue_wait_median_s,
        host=tuple(machine.finish().start.tolist()),
    )
