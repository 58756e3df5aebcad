"""What LSF prints becomes windows."""

from __future__ import annotations

import pytest
from hpcpanda_edge.windows.lsf import SlotWindow, find_windows, parse_bjobs, parse_bslots

from hpcpanda.domain.errors import CorruptData
from hpcpanda.packing.windows import BackfillWindow


def test_slots_are_counted_as_whole_nodes_once(samples: dict[str, str]) -> None:
    """The slots of a longer window are taken to be among those of a shorter one, and half nodes are none."""
    windows = find_windows(parse_bslots(samples["bslots.txt"]), (), queue="batch", slots_per_node=42)
    assert windows == (
        BackfillWindow(queue="batch", nodes=1),
        BackfillWindow(queue="batch", nodes=3, seconds=9005.0),
        BackfillWindow(queue="batch", nodes=6, seconds=1800.0),
    )


def test_an_unlimited_window_ends_when_the_first_pending_job_can_start(samples: dict[str, str]) -> None:
    """Where LSF plans no starts, the run limits of running jobs tell when there is room for the first one."""
    slots = parse_bslots("SLOTS RUNTIME\n42 UNLIMITED\n")
    windows = find_windows(slots, parse_bjobs(samples["bjobs.json"]), queue="batch", slots_per_node=42)
    assert windows == (BackfillWindow(queue="batch", nodes=1, seconds=12_000.0),)


@pytest.mark.parametrize(
    "text", ["No backfill window exists at this time", "No backfill window meets the requirements\n"]
)
def test_the_sentence_that_there_is_no_window(text: str) -> None:
    """LSF says in words that nothing is free; that is knowledge, not an error."""
    assert parse_bslots(text) == ()


@pytest.mark.parametrize(
    ("runtime", "seconds"),
    [
        ("10 minutes", 600.0),
        ("1 hour 1 minute 1 second", 3661.0),
        ("60 second(s)", 60.0),
        ("2 days", 172_800.0),
    ],
)
def test_runtimes(runtime: str, seconds: float) -> None:
    """Lengths are read with any of the units."""
    assert parse_bslots(f"SLOTS RUNTIME\n 4   {runtime}") == (SlotWindow(slots=4, seconds=seconds),)


def test_lines_that_are_no_windows_are_passed_over() -> None:
    """Lines with no slots, no time, or something else do not disturb."""
    assert parse_bslots("hello\nSLOTS RUNTIME\n0 UNLIMITED\n3 soon\nx y\n5 UNLIMITED\n") == (
        SlotWindow(slots=5, seconds=None),
    )


def test_no_jobs() -> None:
    """That there are no jobs is said in words or by an empty list."""
    assert parse_bjobs("No unfinished job found\n") == ()
    assert parse_bjobs('{"COMMAND":"bjobs","JOBS":0,"RECORDS":[]}') == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "[" * 100_000, '{"RECORDS":3}'])
def test_garbage_is_refused(text: str) -> None:
    """What is neither a table nor JSON is an error of the product."""
    with pytest.raises(CorruptData):
        parse_bjobs(text)
    with pytest.raises(CorruptData):
        parse_bslots(text)
