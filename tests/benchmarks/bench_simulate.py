"""What policies harvest of ALCF Theta's idle nodes, how long the simulation takes, and where the missing share goes.

python -m tests.benchmarks.bench_simulate [DAYS] [POLICY,...] [--estimated | --preemptible] [--short-jobs] [--small-holes] [--hours H]

The trace is ../shared/traces/theta-2023.csv.gz; DAYS of it, from its twentieth day on (10 when not said, all with 0). The
site is a friendly centre's: 100 allocations, walltimes up to a day, a look at the batch system every 30 s.
"""

from __future__ import annotations

import argparse
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np

from hpcpanda.domain.site import AllocationSettings, LimitSettings, NodeSettings, SchedulerSettings, Site
from hpcpanda.simulate.harvest import ALL_POLICIES, Host, PolicyName, SimulationOptions, simulate
from hpcpanda.simulate.reading.choose import read_trace
from hpcpanda.simulate.results import HarvestFigures
from hpcpanda.simulate.trace import HostTrace
from hpcpanda.simulate.work.workload import JobWork, Workload

TRACE = Path(__file__).resolve().parents[3] / "shared" / "traces" / "theta-2023.csv.gz"
NODES = 4392
FIRST_DAY = 20
_DAY = 86_400.0


def theta(walltime_s: float = _DAY) -> Site:
    """Theta as a site file of a friendly centre would describe it."""
    return Site(
        name="theta",
        spool="/spool",
        nodes=NodeSettings(count=NODES, cores=64, memory_mb=180_000),
        scheduler=SchedulerSettings(poll_seconds=30.0),
        allocation=AllocationSettings(walltime_s=walltime_s, margin_s=30.0, grace_s=20.0, lookahead_s=600.0),
        limits=LimitSettings(allocations=100),
    )


def bounds(trace: HostTrace, options: SimulationOptions, site: Site) -> None:
    """What the rules alone leave of the holes, if slots were without number: an upper bound of the harvest."""
    host = Host.of(trace, options)
    lengths, widths = host.holes.length, host.holes.width
    total = host.holes.node_seconds
    late = site.scheduler.poll_seconds / 2 + options.cycle_s / 2
    margins = 30.0 + 30.0 + site.allocation.margin_s
    for name, cut in (
        ("looks and cycles of the batch system", late),
        ("and the start margin, whole minutes, the drain margin", late + margins),
        ("and the start-up", late + margins + options.workload.startup_s),
    ):
        left = float((lengths - cut).clip(0.0) @ widths) / total
        print(f"  at most, after {name}: {left:.2%}")


def with_small_holes(trace: HostTrace, longest_s: float = 7200.0) -> HostTrace:
    """The trace with host jobs added that fill every hole of two hours and more."""
    found = Host.of(trace, SimulationOptions()).holes
    long = found.length >= longest_s
    submit = np.concatenate([trace.submit, found.start[long]])
    order = np.argsort(submit, kind="stable")
    columns = {
        "nodes": np.concatenate([trace.nodes, found.width[long]]),
        "run": np.concatenate([trace.run, found.length[long]]),
        "requested": np.concatenate([trace.requested, found.length[long]]),
        "start": np.concatenate([trace.start, found.start[long]]),
    }
    return replace(trace, submit=submit[order], **{name: column[order] for name, column in columns.items()})


def show(figures: HarvestFigures) -> None:
    """One policy."""
    f = figures
    print(
        f"{f.policy}: held {f.harvested_share:.2%}, useful {f.useful_share:.2%} of {f.harvestable:,.0f} node-hours"
    )
    print(
        f"  node-hours: held {f.held:,.0f}, useful {f.useful:,.0f}, lost {f.lost:,.1f}, start-up {f.startup:,.0f}, "
        f"drain {f.drain:,.0f}, unfilled {f.unfilled:,.0f}, displaced {f.displaced:,.1f}"
    )
    print(
        f"  requests {f.requests}, started {f.started}, preempted {f.preempted}, killed at the wall {f.killed_at_wall}; "
        f"events {f.events_finished:,}, jobs {f.jobs_finished:,}"
    )
    print(
        f"  host: {f.host.utilisation_before:.1%} busy before, {f.host.utilisation_after:.1%} after; delayed "
        f"{f.host.delayed_jobs} of {f.host.jobs} jobs, mean {f.host.delay_mean_s:.1f} s, most {f.host.delay_max_s:.0f} s"
    )


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("days", nargs="?", type=float, default=10.0)
    parser.add_argument("policies", nargs="?", default=",".join(ALL_POLICIES))
    parser.add_argument("--estimated", action="store_true")
    parser.add_argument("--preemptible", action="store_true")
    parser.add_argument(
        "--short-jobs", action="store_true", help="jobs of half an hour instead of ePIC's two hours"
    )
    parser.add_argument(
        "--small-holes", action="store_true", help="holes of two hours and more are filled up"
    )
    parser.add_argument("--hours", type=float, default=24.0, help="longest walltime that we ask for")
    said = parser.parse_args()
    site = theta(said.hours * 3600.0)
    trace = read_trace(TRACE, nodes=NODES)
    if said.days:
        trace = trace.period(FIRST_DAY * _DAY, (FIRST_DAY + said.days) * _DAY)
    if said.small_holes:
        trace = with_small_holes(trace)
    short = JobWork(median_s=1800.0, p90_s=2400.0, limit_s=3600.0)
    options = SimulationOptions(
        windows="estimated" if said.estimated or said.preemptible else "truthful",
        preemptible=said.preemptible,
        workload=Workload(jobs=short if said.short_jobs else JobWork()),
        series=False,
    )
    bounds(trace, options, site)
    for name in said.policies.split(","):
        result = simulate(trace, site, policies=[PolicyName(name)], options=options)
        show(result.policies[0])
        print(f"  {result.wall_s:.1f} s for {len(trace)} host jobs")
    print(f"processor {resource.getrusage(resource.RUSAGE_SELF).ru_utime:.0f} s")


if __name__ == "__main__":
    main()
