"""Several output files: whole ranges in event order, so many events each, every event once, the same however often."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue, MergeFailed
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import MAX_ROLLED_NAME, Output, OutputFormat
from hpcpanda.events.columns import Items
from hpcpanda.merge import (
    JobOutputs,
    MergeResult,
    Source,
    digest_bytes,
    digest_columns,
    load_manifest,
    merge_files,
    merging,
)
from hpcpanda.merge.rolling import portions
from tests.unit.merge.conftest import OUTPUTS, arrays, job_files, plain_bytes


def made(spool: Any, sources: list[Source], output: Output, **more: Any) -> list[MergeResult]:
    arguments = {"rest": True, "provenance": {"task": "t"}} | more
    return merge_files(sources=sources, output=output, folder=spool.folder / "out", **arguments)


def taken(parts: list[tuple[Source, ...]]) -> list[IntervalSet]:
    return [IntervalSet.of(r for s in part for r in s.events.ranges()) for part in parts]


def columns_of(events: IntervalSet) -> dict[str, Any]:
    """What a serial run gives for these events."""
    runs = [arrays(r.first, r.last) for r in events.ranges()]
    found: dict[str, Any] = {}
    for name, value in runs[0].items():
        if isinstance(value, Items):
            found[name] = replace(value, content=np.concatenate([run[name].content for run in runs]))
        else:
            found[name] = np.concatenate([run[name] for run in runs])
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("most", [1, 7, 50, 299, 300, 301])
def test_portions_are_whole_ranges_in_order(spool: Any, seed: int, most: int) -> None:
    """Every event is in one of them; none has more events than said, but one that is a single range."""
    sources = spool.nodes(300, plain_bytes, seed=seed)
    parts = portions(sources, most=most, rest=True)
    events = taken(parts)
    assert [b for part in events for b in (part.bounds[0], part.bounds[-1])] == sorted(
        b for part in events for b in (part.bounds[0], part.bounds[-1])
    )
    assert IntervalSet.of(r for part in events for r in part.ranges()) == IntervalSet.span(0, 300)
    assert sum(map(len, events)) == 300
    longest = 9
    assert all(len(part) <= max(most, longest) for part in events)
    assert all(len(part) > most - longest for part in events[:-1])
    again = portions(list(reversed(sources)), most=most, rest=True)
    assert taken(again) == events


def test_what_does_not_fill_a_file_can_wait(spool: Any) -> None:
    """Full files only, until the rest is asked for; the same sources give the same files."""
    source = spool.node("n", [(0, 10), (20, 30), (40, 45)], plain_bytes)
    waiting = portions([source], most=20, rest=False)
    assert taken(waiting) == [IntervalSet((0, 10, 20, 30))]
    assert taken(portions([source], most=10, rest=False)) == [IntervalSet((0, 10)), IntervalSet((20, 30))]
    assert portions([source], most=26, rest=False) == []
    assert taken(portions([source], most=26, rest=True)) == [source.events]
    assert portions([], most=5, rest=True) == []


def test_an_accepted_range_that_no_journal_has_is_not_left_out(spool: Any) -> None:
    """Nor is one that is cut: the merge fails."""
    source = spool.node("n", [(0, 10), (20, 30)], plain_bytes)
    for events in (IntervalSet((0, 11)), IntervalSet((0, 10, 20, 25))):
        with pytest.raises(MergeFailed, match="are accepted but not in journal"):
            portions([replace(source, events=events)], most=5, rest=True)


@pytest.mark.parametrize("kind", [OutputFormat.HDF5, OutputFormat.CONCAT])
def test_each_file_is_what_a_serial_run_of_its_events_gives(spool: Any, kind: OutputFormat) -> None:
    """Its digest says so, its manifest tells its events, and its name its first event."""
    payload = arrays if kind is OutputFormat.HDF5 else plain_bytes
    sources = spool.nodes(300, payload, seed=3)[:2]  # what a third node has is missing: the files have holes
    files = made(spool, sources, Output(file="out.data", format=kind, max_events=40))
    assert len(files) >= 5
    for file in files:
        runs = [(r.first, r.last) for r in file.events.ranges()]
        expected = (
            digest_columns(columns_of(file.events))
            if kind is OutputFormat.HDF5
            else digest_bytes(plain_bytes(*run) for run in runs)
        )
        assert file.digest == expected
        assert file.path.name == f"out.{runs[0][0]:012d}.data"
        manifest = load_manifest(file.path)
        assert manifest is not None
        assert (manifest.file, manifest.events, manifest.digest) == (file.path.name, file.events, file.digest)
    if kind is OutputFormat.HDF5:
        with h5py.File(files[1].path) as opened:
            assert opened["event"][0] == files[1].events.bounds[0]


def test_jobs_are_counted_and_their_failures_are_in_the_last_file(spool: Any) -> None:
    """Each archive has its reports beside it."""
    source = spool.jobs(
        "n", [0, 1, 2, 4, 5], job_files, failed=[FailedEvent(event=3, error="no", attempts=2)]
    )
    jobs = JobOutputs(jobs=6, outputs=OUTPUTS)
    output = Output(file="all.zip", format=OutputFormat.ZIP, max_events=2)
    files = made(spool, [source], output, jobs=jobs, failed=IntervalSet.span(3, 4))
    assert [file.events for file in files] == [
        IntervalSet((0, 2)), IntervalSet((2, 3, 4, 5)), IntervalSet((5, 6))
    ]  # fmt: skip
    members = [name for file in files for name in zipfile.ZipFile(file.path).namelist()]
    assert len(members) == len(set(members)) == 15
    reports = [file.reports.read_text().splitlines() for file in files if file.reports]
    assert [len(lines) for lines in reports] == [2, 2, 2]
    assert '"error":"no"' in reports[-1][0]


def test_a_file_that_stands_is_not_made_again(spool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill between two files only the others are made; the result is that of one go."""
    sources = spool.nodes(120, arrays, seed=1)
    output = Output(file="out.h5", max_events=30)
    first = made(spool, sources, output)
    first[1].path.unlink()
    written: list[Path] = []
    real: Callable[..., Any] = merging._Merging._write

    def write(self: Any, *args: Any) -> Any:
        written.append(self.output)
        return real(self, *args)

    monkeypatch.setattr(merging._Merging, "_write", write)
    assert made(spool, sources, output) == first
    assert written == [first[1].path]


def test_names_of_several_files_have_room_for_their_numbers() -> None:
    """Two files of a task have different names wherever they are made, since no event is in both."""
    output = Output(file="a.tar.gz", format=OutputFormat.CONCAT, max_events=10)
    assert [output.file_from(n) for n in (0, 10, 10**13)] == [
        "a.tar.000000000000.gz", "a.tar.000000000010.gz", "a.tar.10000000000000.gz"
    ]  # fmt: skip
    assert Output(file="a.h5").file_from(7) == "a.h5"
    with pytest.raises(InvalidValue, match=r"output\.file: has more than 100 characters"):
        Output(file="x" * (MAX_ROLLED_NAME + 1), max_events=1)
    with pytest.raises(InvalidValue, match=r"output\.max_events: 0 is outside"):
        Output(file="x", max_events=0)
