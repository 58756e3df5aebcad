"""The Perlmutter preset: what is published beside "as today", then all policies, then what ours depends on.

``python -m tests.benchmarks.bench_perlmutter [SCALE] [FOLDER]``: SCALE is the share of the published 2941 allocations (0.01
takes one to two minutes, then as long again for the variations), FOLDER takes the JSON and the pictures.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from hpcpanda.simulate.perlmutter.jobs import JobModel
from hpcpanda.simulate.perlmutter.queue import run_queue
from hpcpanda.simulate.perlmutter.report import (
    CHECK_COLUMNS,
    COLUMNS,
    READING_COLUMNS,
    check_rows,
    draw_perlmutter,
    reading_rows,
    rows,
)
from hpcpanda.simulate.perlmutter.results import PerlmutterResult
from hpcpanda.simulate.perlmutter.run import run_perlmutter
from hpcpanda.simulate.perlmutter.scenario import Scenario
from hpcpanda.simulate.perlmutter.stream import event_task, perlmutter_site, run_stream

VARIATIONS: dict[str, tuple[Scenario, float]] = {
    "the preset, no lost node": (Scenario(), 20.0),
    "start-up 10 s": (Scenario(startup_s=10.0), 20.0),
    "start-up 180 s": (Scenario(startup_s=180.0), 20.0),
    "start-up 600 s": (Scenario(startup_s=600.0), 20.0),
    "ranges of 20 s": (Scenario(range_s=20.0), 20.0),
    "ranges of 300 s": (Scenario(range_s=300.0), 20.0),
    "events' sigma 0.4": (Scenario(jobs=JobModel(event_sigma=0.4)), 20.0),
    "events' sigma 1.2": (Scenario(jobs=JobModel(event_sigma=1.2)), 20.0),
    "slow jobs 5 times": (Scenario(jobs=JobModel(slow_factor=5.0)), 20.0),
    "grace time 100 s": (Scenario(), 100.0),
}
"""Scenario, and the site's grace time."""
ALLOCATIONS = 4


def print_table(title: str, columns: tuple[str, ...], found: list[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left", box=None)
    for column in columns:
        table.add_column(column)
    for row in found:
        table.add_row(*row)
    console = Console()
    console.width = 200
    console.print(table)


def varied(scenario: Scenario, grace_s: float) -> tuple[str, ...]:
    """Shares of ours without lost nodes and without an endless event."""
    random = np.random.default_rng(11)
    site = perlmutter_site()
    site = replace(site, allocation=replace(site.allocation, grace_s=grace_s))
    room = site.allocation.walltime_s - site.allocation.margin_s - scenario.startup_s
    jobs = round(ALLOCATIONS * site.nodes.cores * room / scenario.jobs.mean_s)
    costs = scenario.jobs.costs(scenario.jobs.seconds(jobs, random), random).ravel()
    run = run_stream(
        costs,
        site=site,
        startup_s=scenario.startup_s,
        spec=event_task(len(costs), range_s=scenario.range_s, timeout_s=3600.0),
        lost_at=lambda _: np.inf,
        progress=lambda _: None,
    )
    whole = [a for a in run.accounts if a.end > site.allocation.walltime_s / 2][:ALLOCATIONS]
    held = sum(a.total for a in whole)
    parts = (
        sum(a.useful for a in whole),
        sum(a.lost_drain for a in whole),
        sum(a.startup for a in whole),
        sum(a.idle for a in whole),
    )
    return (*(f"{part / held:.2%}" for part in parts), f"{run.bias.distance:.5f}")


def main() -> None:
    """Print all tables."""
    scale = float(sys.argv[1]) if len(sys.argv) > 1 else 0.01
    began = time.perf_counter()
    result = run_perlmutter(seed=1, scale=scale)
    print(f"scale {scale:g}, {result.streaming.tasks_events:,} events: {time.perf_counter() - began:.0f} s\n")
    print_table("As today, against what is published", CHECK_COLUMNS, check_rows(result))
    print_table("Readings of what is published", READING_COLUMNS, reading_rows(result))
    print_table("Policies", COLUMNS, rows(result))
    streaming = result.streaming
    print(f"leased {streaming.leases} times, {streaming.given_back:,} events given back")
    print(f"midway, leased against done: distance {streaming.midway.distance:.6f}")
    print(f"a lost node costs {streaming.core_minutes_a_lost_node:.2f} min of each core")
    print(f"costliest event that finished: {streaming.longest_finished_s:.0f} s")
    for failure in result.policies[-1].failed:
        print(f"set aside: event {failure.event}: {failure.error} ({failure.attempts} attempts)")
    if len(sys.argv) > 2:
        folder = Path(sys.argv[2])
        draw_perlmutter(result, folder)
        document = TypeAdapter(PerlmutterResult).dump_json(result, indent=1)
        (folder / "perlmutter.json").write_bytes(document)
    print()
    queues = [run_queue(limit) for limit in (4, 20, 110)]
    print_table(
        "Allocations in 14 days by limits.allocations",
        ("limit", "started", "waiting", "running", "wait median", "p90"),
        [
            (
                f"{q.limit}",
                f"{q.started:,}",
                f"{q.waiting:.1f}",
                f"{q.running:.1f}",
                f"{q.wait_median_s / 60:.0f} min",
                f"{q.wait_p90_s / 3600:.1f} h",
            )
            for q in queues
        ],
    )
    print_table(
        f"Ours, {ALLOCATIONS} allocations without accidents",
        ("variation", "useful", "lost in the drain", "start-up", "idle", "distance"),
        [(name, *varied(*what)) for name, what in VARIATIONS.items()],
    )


if __name__ == "__main__":
    main()
