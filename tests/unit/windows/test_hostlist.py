"""Host lists are expanded, and hostile ones refused before they cost memory."""

from __future__ import annotations

import contextlib
import time
import tracemalloc

import pytest
from hpcpanda_edge.windows.hostlist import MAX_HOSTS, Expander, expand
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import InvalidValue


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("n1", ["n1"]),
        ("a,b-1", ["a", "b-1"]),
        ("node[01-04,07]", ["node01", "node02", "node03", "node04", "node07"]),
        ("n[9-11]", ["n9", "n10", "n11"]),
        ("n[08-10]x,y", ["n08x", "n09x", "n10x", "y"]),
        ("r[1-2]n[0-1]", ["r1n0", "r1n1", "r2n0", "r2n1"]),
        ("exp-9-[47-48,57]", ["exp-9-47", "exp-9-48", "exp-9-57"]),
    ],
)
def test_host_lists(text: str, names: list[str]) -> None:
    """Ranges, leading zeros, several brackets and several items are read as Slurm writes them."""
    assert list(expand(text)) == names


@pytest.mark.parametrize(
    "text",
    [
        "n[0-999999999]",
        "n[0-99999],m[0-99999]",
        "n[0-999][0-999]",
        "n[" + "0-99999," * 9 + "1]",
        "n" * 20000,
        "n[3-1]",
        "n[1-2",
        "n]",
        "n[a-b]",
        "n[-1]",
        "n[[1]]",
        ",,a",
        "a,",
        "n[1-99999999999999999999]",
    ],
)
def test_hostile_and_broken_lists_are_refused(text: str) -> None:
    """Nothing is made of a list before it is known to be small and well formed."""
    tracemalloc.start()
    try:
        with pytest.raises(InvalidValue):
            expand(text)
        assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    finally:
        tracemalloc.stop()


@given(st.text(alphabet="ab019[]-, ", max_size=60) | st.text(max_size=60))
def test_any_text_gives_names_or_the_products_error(text: str) -> None:
    """No text leads to another exception or to more names than the limit."""
    with contextlib.suppress(InvalidValue):
        assert len(expand(text, limit=1000)) <= 1000


def test_an_expander_gives_up_on_an_output_full_of_large_lists() -> None:
    """The names of one output are bounded together, and so is the time."""
    expander = Expander()
    begin = time.process_time()
    found = [expander.names(f"n[0-{MAX_HOSTS - 1}]") for _ in range(11)]
    assert [names is not None for names in found] == [True] * 10 + [False]
    broken = Expander()
    assert all(broken.names("n[0-99998,x]") is None for _ in range(1000))
    assert time.process_time() - begin < 30
