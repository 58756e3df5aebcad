"""What a payload is handed: ranges, input slices and seeds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.payload import InputSlice, RangeWork, philox, pythia_seed
from hpcpanda.payload.work import InputTable

sizes = st.lists(st.integers(1, 50), min_size=1, max_size=8)


def inputs_of(sizes: list[int]) -> Inputs:
    files = tuple(InputFile(path=f"/f{i}", events=n) for i, n in enumerate(sizes))
    return Inputs(format=InputFormat.LHE, files=files)


def test_work_counts_its_events() -> None:
    """A range offers its events as a range object and has their number as its length."""
    work = RangeWork(5, 8, seed=3)
    assert list(work.events) == [5, 6, 7]
    assert len(work) == 3
    assert work.inputs == ()


@given(sizes, st.data())
def test_slices_cover_the_range_exactly(sizes: list[int], data: st.DataObject) -> None:
    """The slices' events, one after the other, are the range; entries stay inside their file."""
    first = data.draw(st.integers(0, sum(sizes) - 1))
    last = data.draw(st.integers(first + 1, sum(sizes)))
    slices = InputTable(inputs_of(sizes)).slices(first, last)
    assert [e for s in slices for e in s.events] == list(range(first, last))
    for s in slices:
        assert 0 <= s.first < s.last <= sizes[int(s.path[2:])]


def test_slice_maps_entries_to_events() -> None:
    """Entry 3 of a file that begins at event 100 is event 103."""
    s = InputSlice("/f", 3, 5, 100)
    assert list(s.entries) == [3, 4]
    assert list(s.events) == [103, 104]


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_pythia_seed_is_in_pythias_range(task_seed: int, event: int) -> None:
    """Seeds are 1..900 000 000: never 0, which would mean the clock."""
    assert 1 <= pythia_seed(task_seed, event) <= 900_000_000


def test_pythia_seeds_do_not_collide_inside_a_task() -> None:
    """A hundred thousand events have as many seeds."""
    assert len({pythia_seed(42, e) for e in range(100_000)}) == 100_000


def test_philox_depends_on_seed_and_event_only() -> None:
    """The same event draws the same numbers again; another event or task seed draws others."""
    draws = [
        philox(*key).random(4).tolist() for key in ((1, 7), (1, 7), (1, 8), (2, 7), (2**63 - 1, 2**63 - 1))
    ]
    assert draws[0] == draws[1]
    assert len({tuple(d) for d in draws}) == 4
    assert np.all(np.array(draws) < 1)
