"""How far plans are from the best: nodes over the lower bound, small instances against the optimum, classic ones.

``python -m tests.benchmarks.bench_packing_quality [LARGEST]`` prints three tables; LARGEST is the most jobs of a family
(default 100 000). Every plan is checked for feasibility.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np

from hpcpanda.packing.bounds import fewest_bins, lower_bound
from hpcpanda.packing.placement import EFFORT, nodes_needed
from hpcpanda.packing.tables import JobTable, NodeTable, Placement
from tests.support.packing_families import FAMILIES, Family, classics
from tests.support.packing_oracle import Unproven, arc_flow, fewest_nodes
from tests.support.packing_plans import check, held_seconds

SIZES = (100, 1000, 10_000, 100_000)
SMALL_SIZES, SMALL_SEEDS = (6, 8, 10), range(10)
CLASSIC_SEEDS = 2
PROOF_S = 10.0
SMALL_EFFORT = 2000
"""Placements tried for an improvement of a small instance; the default is for large ones."""


def planned(
    jobs: JobTable, kind: NodeTable, seconds: float, *, effort: int = EFFORT
) -> tuple[int, Placement, float]:
    """Nodes, the plan, which was checked, and the time it took."""
    began = time.perf_counter()
    count, plan = nodes_needed(jobs, kind, seconds, effort=effort)
    took = time.perf_counter() - began
    columns = {c: np.repeat(getattr(kind, c), count) for c in ("cores", "memory_mb", "gpus", "disk_mb")}
    nodes = replace(kind, **columns, free_from=np.zeros(count), free_until=np.full(count, seconds))
    assert plan.placed.all()
    check(jobs, nodes, plan)
    return count, plan, took


def large(largest: int) -> None:
    """Each family at each size: nodes and held node time above the bounds."""
    print("| family | jobs | bound | nodes | nodes over | node time over | plan s | bound s | bound by |")
    print("|---|---|---|---|---|---|---|---|---|")
    for family in FAMILIES.values():
        for n in (n for n in SIZES if n <= largest):
            jobs = family.jobs(n, seed=0)
            count, plan, took = planned(jobs, family.kind, family.seconds)
            began = time.perf_counter()
            bound = lower_bound(jobs, family.kind, family.seconds)
            bounded = time.perf_counter() - began
            held = held_seconds(jobs, plan) / bound.node_seconds - 1
            print(
                f"| {family.name} | {n} | {bound.nodes} | {count} | {bound.distance(count):.2%} | {held:.2%} "
                f"| {took:.2f} | {bounded:.2f} | {bound.by} |",
                flush=True,
            )


def small() -> None:
    """Each family against the exact optimum."""
    print("\n| family | instances | optimal | one node off | more | bound is the optimum | unproven |")
    print("|---|---|---|---|---|---|---|")
    total: Counter[str] = Counter()
    for family in FAMILIES.values():
        seen: Counter[str] = Counter()
        for n in SMALL_SIZES:
            for seed in SMALL_SEEDS:
                seen[_against_optimum(family, n, seed)] += 1
        print(_small_row(family.name, seen), flush=True)
        total += seen
    print(_small_row("all", total))


def _against_optimum(family: Family, n: int, seed: int) -> str:
    jobs = family.small(n, seed)
    count, _, _ = planned(jobs, family.small_kind, family.small_seconds, effort=SMALL_EFFORT)
    bound = lower_bound(jobs, family.small_kind, family.small_seconds)
    try:
        best = fewest_nodes(jobs, family.small_kind, family.small_seconds, family.small_step, limit_s=PROOF_S)
    except Unproven:
        return "unproven"
    assert bound.nodes <= best <= count
    return f"{min(count - best, 2)} off, bound {'tight' if bound.nodes == best else 'below'}"


def _small_row(name: str, seen: Counter[str]) -> str:
    proven = seen.total() - seen["unproven"]
    off = [sum(c for k, c in seen.items() if k.startswith(f"{o} off")) for o in range(3)]
    tight = sum(c for k, c in seen.items() if k.endswith("tight"))
    shares = " | ".join(f"{c / max(1, proven):.1%}" for c in (*off, tight))
    return f"| {name} | {seen.total()} | {shares} | {seen['unproven']} |"


def classic() -> None:
    """Classic instances by recipe: bins above the optimum, or above the relaxation where that is not known."""
    print("\n| set | instances | bins, best proven | bins used | at the best | one off | most off | plan s |")
    print("|---|---|---|---|---|---|---|---|")
    sets: defaultdict[str, list[tuple[int, int, float]]] = defaultdict(list)
    for instance in classics(CLASSIC_SEEDS):
        count, _, took = planned(instance.jobs, instance.kind, 1.0)
        best = instance.optimum or fewest_bins(instance.sizes, instance.capacity)
        if count > best and instance.optimum is None and instance.capacity <= 1000:
            best = max(best, _relaxation(instance.sizes, instance.capacity))
        group = instance.name.split("-n")[0]
        if group == "scholl2":
            group += " of 1000/" + instance.name.split("-w")[1].split("-")[0]
        sets[group].append((best, count, took))
    for name, rows in sets.items():
        off = [count - best for best, count, _ in rows]
        print(
            f"| {name} | {len(rows)} | {sum(r[0] for r in rows)} | {sum(r[1] for r in rows)} "
            f"| {off.count(0)} | {off.count(1)} | {max(off)} | {max(r[2] for r in rows):.2f} |",
            flush=True,
        )


def _relaxation(sizes: np.ndarray, capacity: int) -> int:
    try:
        return arc_flow(sizes, capacity, PROOF_S, integer=False)
    except Unproven:
        return 0


if __name__ == "__main__":
    large(int(sys.argv[1]) if len(sys.argv) > 1 else SIZES[-1])
    small()
    classic()
