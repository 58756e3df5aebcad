"""Placing jobs: how near to the bound, how fast, and how long one job more takes.

``python -m tests.benchmarks.bench_placement [quality|speed|one|all] [MOST]`` prints a table each. ``quality`` counts nodes over the
lower bound for each family at 10^4 jobs, and 10^5 when MOST says so; ``speed`` places 10^3 ... MOST jobs (10^5 unless said
otherwise) on as many nodes as they need; ``one`` adds and removes single jobs in a plan of MOST jobs, full or not.
Seconds are processor seconds of this process, so that a busy machine hardly matters.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace

import numpy as np

from hpcpanda.packing.bounds import lower_bound
from hpcpanda.packing.placement import EFFORT, Plan, nodes_needed, place
from hpcpanda.packing.tables import NodeTable
from tests.support.packing_families import FAMILIES, Family
from tests.support.packing_plans import check


def nodes_of(family: Family, count: int) -> NodeTable:
    """So many nodes of a family's kind."""
    kind = family.kind
    return NodeTable.alike(
        count,
        cores=int(kind.cores[0]),
        memory_mb=int(kind.memory_mb[0]),
        gpus=int(kind.gpus[0]),
        disk_mb=int(kind.disk_mb[0]),
        free_until=family.seconds,
    )


def quality(most: int) -> None:
    """Nodes over the bound, with one sweep and with the usual effort."""
    print(
        f"{'family':14s} {'jobs':>8s} {'bound':>6s} {'sweep':>6s} {'over':>7s} {'repaired':>8s} {'over':>7s} {'s':>6s}"
    )
    for size in [n for n in (1_000, 10_000, 100_000) if n <= most]:
        for family in FAMILIES.values():
            jobs = family.jobs(size, seed=1)
            bound = lower_bound(jobs, family.kind, family.seconds)
            first, _ = nodes_needed(jobs, family.kind, family.seconds, effort=0)
            start = time.process_time()
            best, plan = nodes_needed(jobs, family.kind, family.seconds, effort=EFFORT)
            used = time.process_time() - start
            check(jobs, nodes_of(family, best), plan)
            print(
                f"{family.name:14s} {size:8d} {bound.nodes:6d} {first:6d} {bound.distance(first):7.2%} "
                f"{best:8d} {bound.distance(best):7.2%} {used:6.2f}",
                flush=True,
            )


def speed(most: int) -> None:
    """Seconds for place(), on 2 % more nodes than the bound."""
    print(
        f"{'family':14s} {'jobs':>8s} {'nodes':>7s} {'s':>7s} {'us a job':>9s} {'placed':>8s} {'of work':>8s}"
    )
    for size in [n for n in (1_000, 10_000, 100_000, 1_000_000) if n <= most]:
        for family in FAMILIES.values():
            jobs = family.jobs(size, seed=1)
            nodes = nodes_of(family, int(lower_bound(jobs, family.kind, family.seconds).nodes * 1.02) + 1)
            start = time.process_time()
            plan = place(jobs, nodes)
            used = time.process_time() - start
            check(jobs, nodes, plan)
            work = jobs.cores * jobs.seconds * jobs.nodes
            share = work[plan.placed].sum() / work.sum()
            print(
                f"{family.name:14s} {size:8d} {len(nodes):7d} {used:7.2f} {used / size * 1e6:9.1f} "
                f"{plan.placed.mean():8.2%} {share:8.2%}",
                flush=True,
            )


def one(size: int) -> None:
    """Milliseconds to add one job to a large plan, where there is room and where there is hardly any, and to remove it."""
    print(
        f"{'family':14s} {'jobs':>8s} {'room':>5s} {'added':>6s} {'median ms':>10s} {'p99 ms':>8s} {'most ms':>8s} {'remove ms':>9s}"
    )
    for name in ("uniform", "hep", "memory", "gpu"):
        family = FAMILIES[name]
        jobs = family.jobs(size, seed=1)
        bound = lower_bound(jobs, family.kind, family.seconds).nodes
        for room in (0.98, 1.05):
            nodes = nodes_of(family, int(bound * room))
            plan = Plan.of(jobs, nodes, place(jobs, nodes))
            more = family.jobs(300, seed=2)
            times: list[float] = []
            added: list[int] = []
            for i in range(len(more)):
                start = time.process_time()
                found = plan.add(size + i, replace(more.row(i), not_before=0.0))
                times.append(time.process_time() - start)
                if found is not None:
                    added.append(size + i)
            start = time.process_time()
            for job in added:
                plan.remove(job)
            gone = (time.process_time() - start) / max(1, len(added))
            half, tail, top = np.quantile(times, [0.5, 0.99, 1.0]) * 1e3
            print(
                f"{name:14s} {len(plan):8d} {room:5.2f} {len(added):6d} {half:10.2f} {tail:8.2f} {top:8.2f} {gone * 1e3:9.2f}",
                flush=True,
            )


def main() -> None:
    """Print the tables that were asked for."""
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    most = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    if what in {"quality", "all"}:
        quality(most or 10_000)
    if what in {"speed", "all"}:
        speed(most or 100_000)
    if what in {"one", "all"}:
        one(most or 100_000)


if __name__ == "__main__":
    main()
