"""Whatever the jobs: no bound is above the proven optimum or a plan that exists, none below the volume."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.packing.bounding.classes import TICKS, ticks
from hpcpanda.packing.bounding.pairs import LARGE, RATIOS, pair_values
from hpcpanda.packing.bounding.scales import scales
from hpcpanda.packing.bounds import fewest_bins, lower_bound
from hpcpanda.packing.tables import JobTable
from tests.support.packing_families import jobs_of, kind_of
from tests.support.packing_oracle import Small, arc_flow, by_patterns, by_time, fewest_nodes

STEPS = 5
CORES, MEMORY = 6, 12

demands = st.tuples(st.integers(1, CORES), st.integers(0, MEMORY), st.integers(1, STEPS))


def table(rows: list[tuple[int, int, int]], widths: list[int] | None = None) -> JobTable:
    cores, memory, steps = (np.array(column) for column in zip(*rows, strict=True))
    return jobs_of(
        cores, steps.astype(float), memory_mb=memory, nodes=None if widths is None else np.array(widths)
    )


NODE = kind_of(CORES, STEPS, memory_mb=MEMORY)


@settings(max_examples=60)
@given(st.lists(demands, min_size=1, max_size=7))
def test_never_above_the_optimum(rows: list[tuple[int, int, int]]) -> None:
    """Jobs of one node: the bound is at most the exact optimum."""
    jobs = table(rows)
    assert lower_bound(jobs, NODE, STEPS).nodes <= fewest_nodes(jobs, NODE, STEPS, 1.0)


@settings(max_examples=25)
@given(st.lists(st.tuples(demands, st.sampled_from([1, 1, 1, 2, 3])), min_size=1, max_size=5))
def test_never_above_the_optimum_of_wide_jobs(rows: list[tuple[tuple[int, int, int], int]]) -> None:
    """Jobs of several nodes among the others: the same."""
    jobs = table([row for row, _ in rows], [width for _, width in rows])
    assert lower_bound(jobs, NODE, STEPS).nodes <= fewest_nodes(jobs, NODE, STEPS, 1.0)


@settings(max_examples=15)
@given(st.lists(demands, min_size=1, max_size=5))
def test_both_exact_formulations_agree(rows: list[tuple[int, int, int]]) -> None:
    """The oracle's two formulations, which share nothing but the solver, find the same optimum."""
    small = Small.of(table(rows), NODE, STEPS, 1.0)
    assert by_patterns(small, 20) == by_time(small, 20)


@settings(max_examples=40)
@given(st.integers(4, 40), st.data())
def test_bins_never_above_the_optimum(capacity: int, data: st.DataObject) -> None:
    """One-dimensional instances: between the volume and the exact optimum, which relaxation and search agree on."""
    sizes = np.array(data.draw(st.lists(st.integers(1, capacity), min_size=1, max_size=14)))
    optimum = arc_flow(sizes, capacity, 20)
    assert math.ceil(sizes.sum() / capacity) <= fewest_bins(sizes, capacity) <= optimum
    assert arc_flow(sizes, capacity, 20, integer=False) <= optimum


@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans())
def test_never_above_a_plan_that_exists(seed: int, nodes: int, wide: bool) -> None:
    """Jobs cut out of so many nodes, with times to keep around where they were cut: at most so many are needed."""
    rng = np.random.default_rng(seed)
    jobs, held = planted(rng, nodes, wide=wide)
    if len(jobs):
        found = lower_bound(jobs, NODE, STEPS)
        assert found.nodes <= len(held)
        assert found.node_seconds <= sum(held) * (1 + 1e-9)


def planted(rng: np.random.Generator, nodes: int, *, wide: bool) -> tuple[JobTable, list[float]]:
    """Jobs with a plan on so many nodes, their starts being no whole steps, and the time each node is held for."""
    grid = 40
    step = STEPS / grid
    free = np.tile(np.array([CORES, MEMORY]), (nodes, grid, 1))
    rows, times, widths = [], [], []
    spans: dict[int, tuple[int, int]] = {}
    for _ in range(30):
        start = int(rng.integers(0, grid))
        length = int(rng.integers(1, grid - start + 1))
        width = int(rng.integers(2, nodes + 1)) if wide and nodes > 1 and rng.random() < 0.2 else 1
        want = np.array([CORES, MEMORY]) if width > 1 else rng.integers(1, [CORES + 1, MEMORY + 1])
        fits = np.flatnonzero((free[:, start : start + length] >= want).all(axis=(1, 2)))[:width]
        if len(fits) == width:
            free[fits, start : start + length] -= want
            for node in fits.tolist():
                first, last = spans.get(node, (start, start + length))
                spans[node] = min(first, start), max(last, start + length)
            rows.append((*want.tolist(), 1))
            times.append((start, start + length))
            widths.append(width)
    if not rows:
        return jobs_of(np.zeros(0, np.int64), np.zeros(0)), []
    begin, end = (np.array(column) for column in zip(*times, strict=True))
    slack = rng.integers(0, grid, (2, len(rows))) * rng.integers(0, 2)
    jobs = replace(
        table(rows, widths),
        seconds=(end - begin) * step,
        not_before=(begin - slack[0]) * step,
        deadline=np.where(rng.random(len(rows)) < 0.3, np.inf, (end + slack[1]) * step),
    )
    return jobs, [(last - first) * step for first, last in spans.values()]


@given(st.lists(demands, min_size=1, max_size=20), demands)
def test_one_more_job_never_needs_less(rows: list[tuple[int, int, int]], more: tuple[int, int, int]) -> None:
    """Nodes and node time are monotone in the jobs."""
    few, many = (lower_bound(table(r), NODE, STEPS) for r in (rows, [*rows, more]))
    assert many.nodes >= few.nodes
    assert many.node_seconds >= few.node_seconds * (1 - 1e-9)


@given(st.lists(demands, min_size=1, max_size=20))
def test_never_below_the_volume(rows: list[tuple[int, int, int]]) -> None:
    """At least the volume of each resource, rounded up."""
    jobs = table(rows)
    found = lower_bound(jobs, NODE, STEPS)
    for demand, capacity in ((jobs.cores, CORES), (jobs.memory_mb, MEMORY)):
        volume = float(demand @ jobs.seconds) / capacity
        assert found.nodes >= math.ceil(volume / STEPS - 1e-9)
        assert found.node_seconds >= volume * (1 - 1e-9)


@given(st.lists(demands, min_size=1, max_size=12), st.randoms())
def test_the_order_of_jobs_does_not_matter(rows: list[tuple[int, int, int]], random: object) -> None:
    """Equal jobs in another order have the same bound."""
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert lower_bound(table(rows), NODE, STEPS).nodes == lower_bound(table(shuffled), NODE, STEPS).nodes


@given(st.integers(1, 500), st.data())
def test_functions_are_dual_feasible(capacity: int, data: st.DataObject) -> None:
    """Whatever sizes fit together, their images under every function fit together: this is what makes bounds true."""
    chosen, left = [], capacity
    for _ in range(data.draw(st.integers(1, 12))):
        size = data.draw(st.integers(0, left))
        chosen.append(size)
        left -= size
    others = data.draw(st.lists(st.integers(0, capacity), max_size=10))
    sizes = np.unique(np.array([*chosen, *others]))
    values = scales(sizes, capacity).values[:, np.searchsorted(sizes, chosen)]
    assert values.sum(axis=1).max() <= 1 + 1e-9
    assert values.min() >= 0


@given(st.integers(1, 500), st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_functions_are_monotone(capacity: int, sizes: list[int]) -> None:
    """A larger size has no smaller image: rounding sizes down to classes is safe."""
    values = scales(np.unique(np.minimum(sizes, capacity)), capacity).values
    assert np.diff(values, axis=1).min(initial=0.0) >= -1e-12


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=2, max_size=8),
    st.sampled_from(LARGE),
)
def test_functions_of_two_resources_are_dual_feasible(
    amounts: list[tuple[int, int]], large: tuple[int, int]
) -> None:
    """Jobs that fit a node in both resources count as one node at most, by every function."""
    fitting: list[tuple[int, int]] = []
    for amount in amounts:
        if all(sum(column) <= 12 for column in zip(*fitting, amount, strict=True)):
            fitting.append(amount)
    first, second = (ticks(np.array(column), 12) for column in zip(*fitting, strict=True))
    values = pair_values(first, second, large, RATIOS[:, None])
    assert values.min() >= 0
    assert values.sum(axis=1).max() <= 1 + 1e-9


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=8),
    st.sampled_from(LARGE),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_functions_of_two_resources_are_monotone(
    amounts: list[tuple[int, int]], large: tuple[int, int], more: int, also: int
) -> None:
    """A job that takes more of either resource counts for no less: rounding down to ticks is safe."""
    first, second = (ticks(np.array(column), 18) for column in zip(*amounts, strict=True))
    bigger = (
        ticks(np.array(column) + by, 18)
        for column, by in zip(zip(*amounts, strict=True), (more, also), strict=True)
    )
    less = pair_values(first, second, large, RATIOS[:, None])
    assert (pair_values(*bigger, large, RATIOS[:, None]) >= less - 1e-12).all()


@given(st.integers(1, 10**10), st.data())
def test_ticks_round_down(capacity: int, data: st.DataObject) -> None:
    """Amounts that fit together fit together in ticks, and the whole is all ticks."""
    first = data.draw(st.integers(0, capacity))
    amounts = np.array([first, capacity - first, capacity])
    scaled = ticks(amounts, capacity)
    assert scaled[0] + scaled[1] <= scaled[2] == TICKS
