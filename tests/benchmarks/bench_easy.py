"""The host's machine: how fast EASY and the machines are, and what Theta's jobs of 2023 leave idle.

``python -m tests.benchmarks.bench_easy`` prints both; ``... speed`` or ``... theta`` one of them. Theta's trace is
``../shared/traces/theta-2023.csv.gz`` beside the project and is left out where it is missing.
"""

from __future__ import annotations

import resource
import sys
import time
from math import inf
from pathlib import Path

import numpy as np

from hpcpanda.simulate.machines.easy import EasyMachine
from hpcpanda.simulate.machines.figures import busy_node_seconds, host_figures
from hpcpanda.simulate.machines.host_alone import HostRun, HostSchedule, host_schedule
from hpcpanda.simulate.machines.host_machine import HostMachine, MachineOptions
from hpcpanda.simulate.machines.idle import holes, idle_profile
from hpcpanda.simulate.machines.preempting import PreemptingMachine
from hpcpanda.simulate.machines.truthful import TruthfulMachine
from hpcpanda.simulate.reading.choose import read_trace
from hpcpanda.simulate.trace import HostTrace

THETA = Path(__file__).parents[3] / "shared" / "traces" / "theta-2023.csv.gz"
HOUR = 3600.0


def made_trace(jobs: int, *, load: float, nodes: int = 4000, seed: int = 1) -> HostTrace:
    """Log-normal nodes and run times, requests of up to several times the run, in quarters of an hour."""
    random = np.random.default_rng(seed)
    width = np.minimum(np.ceil(random.lognormal(1.0, 1.6, jobs)), nodes).astype(np.int64)
    run = np.clip(random.lognormal(7.3, 1.4, jobs), 10.0, 86_400.0)
    asked = np.ceil(run * (1.0 + random.exponential(1.5, jobs)) / 900.0) * 900.0
    submit = np.sort(random.uniform(0.0, float(run @ width) / (nodes * load), jobs))
    return HostTrace(
        submit=submit - submit[0],
        nodes=width,
        run=run,
        requested=asked,
        start=np.full(jobs, np.nan),
        machine_nodes=nodes,
        epoch=0.0,
        source="made",
    )


def greedy(machine: HostMachine, *, end: float, poll_s: float, longest_s: float, most: int = 100) -> float:
    """Ask for every window of at least 5 minutes at each change, at most once a poll; seconds that it took."""
    begun = time.process_time()
    alive = 0
    while machine.now < end:
        for window in machine.windows():
            seconds = np.floor(min(window.length, longest_s) / 60.0) * 60.0
            if seconds >= 300.0 and alive < most:
                machine.submit(window.nodes, seconds)
                alive += 1
        wake = min(max(machine.next_change(), machine.now + poll_s), end)
        while machine.now < wake:
            gone = sum(e.what in ("killed", "ended") for e in machine.advance(wake))
            alive -= gone
            if gone:
                break
    return time.process_time() - begun


def speed() -> None:
    """Jobs a second at several loads, and machines that are driven through a year."""
    print("EASY on 4000 nodes   jobs  load  waiting mean/most   CPU s   us/job")
    for jobs, load in ((100_000, 0.85), (100_000, 1.0), (100_000, 1.2), (1_000_000, 0.9), (1_000_000, 1.0)):
        trace = made_trace(jobs, load=load)
        begun = time.process_time()
        host_schedule(trace)
        took = time.process_time() - begun
        mean, most = depth(trace) if jobs <= 100_000 else (np.nan, 0)
        print(f"{jobs:25d} {load:5.2f} {mean:10.0f} {most or '':>6} {took:9.2f} {took / jobs * 1e6:8.1f}")
    trace = made_trace(300_000, load=0.85)
    print(f"machines, 300 000 host jobs in {trace.submit[-1] / 86_400:.0f} days, a greedy harvester")
    drive(trace, host_schedule(trace), end=float(trace.submit[-1]))


def depth(trace: HostTrace) -> tuple[float, int]:
    """Mean and most of the jobs waiting, over the host's instants."""
    host, waiting = HostRun(trace), []
    while host.next_time < inf:
        host.step(host.next_time)
        waiting.append(host.queue.waiting)
    return float(np.mean(waiting)), max(waiting)


def drive(trace: HostTrace, alone: HostSchedule, *, end: float) -> None:
    """Each machine with a greedy harvester, against the host alone."""
    options = MachineOptions(cycle_s=10.0, grace_s=30.0)
    made = {
        "truthful": lambda: TruthfulMachine(trace, alone, options),
        "easy": lambda: EasyMachine(trace, options),
        "preempting": lambda: PreemptingMachine(trace, options),
    }
    before = alone if np.isnan(trace.start).all() else host_schedule(trace)
    for name, make in made.items():
        machine = make()
        took = greedy(machine, end=end, poll_s=30.0, longest_s=6 * HOUR)
        after = machine.finish()
        held = sum((min(a.end, end) - a.start) * a.nodes for a in machine.allocations if a.start < end)
        kept = alone if name == "truthful" else before
        found = host_figures(trace, kept, after, span=(0.0, end), useful_node_s=0.0)
        print(
            f"  {name:10} {took:6.2f} CPU s, {len(machine.allocations)} allocations, {held / HOUR:.0f} node-hours held; "
            f"host jobs late: {found.delayed_jobs} of {found.jobs}, mean {found.delay_mean_s:.1f} s, "
            f"most {found.delay_max_s:.0f} s"
        )


def theta() -> None:
    """What the real machine, and EASY in its place, left idle."""
    if not THETA.exists():
        print(f"no {THETA}")
        return
    trace = read_trace(THETA)
    print(f"Theta: {len(trace)} jobs, {trace.machine_nodes} nodes")
    recorded, easy = host_schedule(trace, backfill="recorded"), host_schedule(trace)
    for name, schedule in (("recorded", recorded), ("easy", easy)):
        span = schedule.span(trace)
        whole = (span[1] - span[0]) * trace.machine_nodes
        profile = idle_profile(trace, schedule)
        idle = profile.node_seconds(*span)
        shares = ", ".join(
            f">= {s / 60:.0f} min {holes(profile, span, shortest_s=s).node_seconds / idle:.4f}"
            for s in (60.0, 300.0, 900.0, 3600.0)
        )
        wait = schedule.start - trace.submit
        print(
            f"  {name:8} {(span[1] - span[0]) / 86_400:.1f} days, busy {busy_node_seconds(trace, schedule, span) / whole:.4f}, "
            f"idle {idle / HOUR:.0f} node-hours, of these in holes {shares}; "
            f"wait median {np.median(wait):.0f} s, mean {wait.mean():.0f} s"
        )
    drive(trace, recorded, end=float(trace.submit[-1]))


def main() -> None:
    """Print figures."""
    chosen = sys.argv[1:] or ["speed", "theta"]
    if "speed" in chosen:
        speed()
    if "theta" in chosen:
        theta()
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
