"""The cover of a staircase: exact against trying everything, never worse than one rectangle, never worse with more."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.packing.shaping.cover import Rectangle, Step, Terms, cover
from hpcpanda.packing.shaping.value import Prospect

PROSPECT = Prospect(startup_s=20.0, drain_s=60.0, loss_s=20.0)


def step(nodes: int, seconds: float, takers: int = 10**9) -> Step:
    """A hole that is asked for in full length."""
    return Step(nodes=nodes, length=seconds, walltime_s=seconds, life=seconds, takers=takers)


def worth(found: tuple[Rectangle, ...], price: float = 0.0) -> float:
    return sum(r.useful - price for r in found)


def best_of_all(steps: tuple[Step, ...], terms: Terms) -> float:
    """The best cover found by trying every set of cuts at every node."""
    lengths = [s.life for s in steps for _ in range(s.nodes)][: terms.nodes]
    best = 0.0
    for used in range(1, len(lengths) + 1):
        for number in range(1, min(terms.rectangles, used) + 1):
            for inner in combinations(range(1, used), number - 1):
                cuts = [0, *inner, used]
                sizes = [(b - a, lengths[b - 1]) for a, b in pairwise(cuts)]
                if all(
                    terms.fewest_nodes <= n <= (terms.most_nodes or n)
                    and max(0.0, t - 80.0) >= terms.least_share * t
                    for n, t in sizes
                ):
                    best = max(best, sum(n * max(0.0, t - 80.0) - terms.price for n, t in sizes))
    return best


staircases = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40)), min_size=1, max_size=4).map(
    lambda holes: tuple(step(n, 50.0 * t) for t, n in sorted({t: n for n, t in holes}.items(), reverse=True))
)


@given(
    steps=staircases,
    slots=st.integers(1, 5),
    nodes=st.integers(1, 14),
    price=st.sampled_from([0.0, 100.0, 2000.0]),
)
def test_no_other_choice_of_rectangles_brings_more(
    steps: tuple[Step, ...], slots: int, nodes: int, price: float
) -> None:
    """Every cut of every staircase of up to twelve nodes was tried."""
    terms = Terms(rectangles=slots, nodes=nodes, price=price, least_share=0.3)
    found = cover(steps, terms, PROSPECT)
    assert worth(found, price) == pytest.approx(best_of_all(steps, terms))
    assert len(found) <= slots


@given(steps=staircases, slots=st.integers(1, 6))
def test_a_cover_brings_at_least_what_any_single_rectangle_does(steps: tuple[Step, ...], slots: int) -> None:
    """Whatever the price of a request."""
    found = cover(steps, Terms(rectangles=slots, nodes=100, price=500.0), PROSPECT)
    wide = 0
    for hole in steps:
        wide += hole.nodes
        single = wide * max(0.0, hole.life - 80.0)
        assert worth(found) >= min(single, single - 500.0) - 1e-6


@given(
    steps=staircases, slots=st.integers(1, 6), price=st.floats(0, 5000), most=st.none() | st.integers(1, 5)
)
def test_more_slots_never_bring_less(
    steps: tuple[Step, ...], slots: int, price: float, most: int | None
) -> None:
    """Neither in sum nor after the price of requests."""
    terms = Terms(rectangles=slots, nodes=100, price=price, most_nodes=most)
    fewer = cover(steps, terms, PROSPECT)
    more = cover(steps, replace(terms, rectangles=slots + 1), PROSPECT)
    assert worth(more) >= worth(fewer) - 1e-6
    assert worth(more, price) >= worth(fewer, price) - 1e-6


@given(steps=staircases, slots=st.integers(1, 6), most=st.integers(1, 5), fewest=st.integers(1, 3))
def test_rectangles_lie_side_by_side_within_the_terms(
    steps: tuple[Step, ...], slots: int, most: int, fewest: int
) -> None:
    """No node is in two, none is beyond the staircase, and each has as many nodes as it may."""
    terms = Terms(rectangles=slots, nodes=9, most_nodes=max(most, fewest), fewest_nodes=fewest)
    at = 0
    for rectangle in sorted(cover(steps, terms, PROSPECT), key=lambda r: r.first):
        assert rectangle.first >= at
        at = rectangle.first + rectangle.nodes
        assert fewest <= rectangle.nodes <= max(most, fewest)
        assert at <= sum(s.nodes for s in steps[: rectangle.step + 1])
    assert at <= min(9, sum(s.nodes for s in steps))


def test_few_requests_where_slots_are_scarce() -> None:
    """Three steps and one slot: the rectangle of the most time; with two slots the two best."""
    steps = (step(4, 3000.0), step(4, 2900.0), step(20, 400.0))
    (one,) = cover(steps, Terms(rectangles=1, nodes=100), PROSPECT)
    assert (one.nodes, one.step) == (8, 1)
    assert [r.nodes for r in cover(steps, Terms(rectangles=2, nodes=100), PROSPECT)] == [8, 20]
    assert [r.nodes for r in cover(steps, Terms(rectangles=3, nodes=100), PROSPECT)] == [4, 4, 20]


def test_a_request_that_adds_less_than_its_price_is_not_made() -> None:
    """Eight nodes for 2900 s in one request rather than half of them 100 s longer in a second."""
    steps = (step(4, 3000.0), step(4, 2900.0))
    assert len(cover(steps, Terms(rectangles=9, nodes=100, price=500.0), PROSPECT)) == 1
    assert len(cover(steps, Terms(rectangles=9, nodes=100, price=300.0), PROSPECT)) == 2


def test_a_wide_hole_is_split_where_preemption_would_cost_all_of_it() -> None:
    """With a hazard the allocation that ends is as large as it is wide; without one a single request does."""
    steps = (step(64, 14_400.0),)
    terms = Terms(rectangles=16, nodes=64, price=60.0)
    assert len(cover(steps, terms, PROSPECT)) == 1
    often = replace(PROSPECT, preemptions_per_node_hour=0.05)
    assert len(cover(steps, terms, often)) > 1
    assert len(cover(steps, replace(terms, rectangles=1), often)) == 1


def test_work_that_fits_only_long_holes_leaves_the_short_ones() -> None:
    """A step that no work fits into is not covered."""
    steps = (step(2, 3000.0, takers=5), step(9, 500.0, takers=0))
    (found,) = cover(steps, Terms(rectangles=5, nodes=50), PROSPECT)
    assert (found.nodes, found.step) == (2, 0)


def test_many_steps_and_slots_are_no_burden() -> None:
    """Hundreds of holes and a hundred slots: a cover that uses all slots and no node twice."""
    steps = tuple(step(1 + i % 5, 20_000.0 - 60.0 * i) for i in range(250))
    found = cover(steps, Terms(rectangles=100, nodes=10_000, most_nodes=8), PROSPECT)
    assert len(found) <= 100
    assert sum(r.nodes for r in found) <= sum(s.nodes for s in steps)
