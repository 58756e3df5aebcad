"""What every output format must do; a new merger is added to the table and has to pass."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcpanda.domain.errors import CorruptData, HpcPandaError, MergeFailed
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.journal import segment_path
from hpcpanda.merge import (
    MERGERS,
    Source,
    checking,
    copying,
    digest_bytes,
    digest_columns,
    digest_file,
    load_manifest,
    merge,
    reading,
)

Payload = Callable[[int, int], object]


@pytest.fixture(params=list(MERGERS))
def kind(request: pytest.FixtureRequest) -> OutputFormat:
    """Every format that has a merger."""
    return request.param


@pytest.fixture
def payload(kind: OutputFormat, payload_of: Callable[[OutputFormat], Payload]) -> Payload:
    """A payload that suits the format."""
    return payload_of(kind)


def serial(payload: Payload, events: int) -> str:
    """Digest of one run over everything."""
    result = payload(0, events)
    return digest_bytes(result) if isinstance(result, bytes) else digest_columns(result)


def hidden(folder: Path) -> list[str]:
    """Leftovers."""
    return [p.name for p in folder.iterdir() if p.name.startswith(".") or ".view." in p.name]


def test_every_format_has_a_merger() -> None:
    """No output format can be asked for that cannot be merged."""
    assert set(MERGERS) == set(OutputFormat)


@pytest.mark.parametrize("seed", range(6))
def test_the_digest_is_that_of_a_serial_run(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload, seed: int
) -> None:
    """However ranges are cut, dealt to nodes and ordered, the content is what one process would have made."""
    rng = random.Random(seed)
    sources = spool.nodes(
        200,
        payload,
        seed=seed,
        nodes=rng.randint(1, 6),
        longest=rng.choice([1, 9, 60]),
        roll=rng.choice([1, 5000]),
    )
    rng.shuffle(sources)
    result = merge(
        sources=sources,
        format=kind,
        output=tmp_path / "out",
        provenance={"site": "x"},
        threads=rng.randint(1, 4),
    )
    assert result.digest == digest_file(result.path, kind) == serial(payload, 200)
    assert result.events == IntervalSet.span(0, 200)
    assert result.size == result.path.stat().st_size
    assert not hidden(tmp_path)


@pytest.mark.parametrize("window", [1, 700, 5000])
def test_windows_and_large_ranges_change_nothing(
    spool: Any,
    tmp_path: Path,
    kind: OutputFormat,
    payload: Payload,
    window: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ranges larger than a window are copied in parts, small ones together, with the same content."""
    sources = spool.nodes(150, payload, longest=50)
    monkeypatch.setattr(reading, "WINDOW", window)
    monkeypatch.setattr(reading, "STEP", 1000)
    result = merge(sources=sources, format=kind, output=tmp_path / "out", provenance={})
    assert result.digest == digest_file(result.path, kind) == serial(payload, 150)


def test_blocks_of_the_digest_may_end_anywhere(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces are cut where blocks end, so that small blocks give equal digests of the merge and the file."""
    from hpcpanda.merge import digest

    for module in (checking, copying, digest):
        monkeypatch.setattr(module, "BLOCK", 113)
    result = merge(sources=spool.nodes(150, payload), format=kind, output=tmp_path / "out", provenance={})
    assert result.digest == digest_file(result.path, kind) == serial(payload, 150)


def test_the_manifest_tells_what_is_in_the_file(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload
) -> None:
    """Digest, size, events, failures, columns, sources and provenance are in the manifest."""
    sources = [spool.node("a", [(0, 5), (6, 9)], payload), spool.node("b", [(9, 12)], payload, epoch=4)]
    lost = IntervalSet.span(5, 6)
    result = merge(
        sources=sources, format=kind, output=tmp_path / "out", provenance={"site": "x"}, failed=lost
    )
    manifest = load_manifest(result.path)
    assert manifest is not None
    assert (manifest.digest, manifest.size, manifest.events, manifest.failed) == (
        result.digest,
        result.size,
        IntervalSet((0, 5, 6, 12)),
        lost,
    )
    assert [(s.epoch, s.events.bounds, s.ranges, len(s.segments)) for s in manifest.sources] == [
        (1, (0, 5, 6, 9), 2, 1),
        (4, (9, 12), 1, 1),
    ]
    assert json.loads(result.manifest.read_text())["provenance"] == {"site": "x"}


def test_only_accepted_ranges_are_merged(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload
) -> None:
    """Ranges of another epoch, and ranges not wholly accepted, stay out."""
    early = spool.node("early", [(0, 4), (4, 8), (8, 12)], payload, epoch=1)
    late = spool.node("late", [(4, 10), (10, 12)], payload, epoch=2)
    sources = [
        Source(journal=early.journal, epoch=1, events=IntervalSet.span(0, 4)),
        Source(journal=early.journal, epoch=9, events=EMPTY),
        late,
    ]
    result = merge(sources=sources, format=kind, output=tmp_path / "out", provenance={})
    assert result.digest == serial(payload, 12)


def test_doing_it_again_does_nothing(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload
) -> None:
    """A second merge of the same accepts what stands, even when the segments are gone."""
    sources = spool.nodes(50, payload)
    first = merge(sources=sources, format=kind, output=tmp_path / "out", provenance={})
    stamp = first.path.stat()
    (tmp_path / ".out.tmp-dead.data").write_bytes(b"leftover")
    for path in spool.folder.iterdir():
        path.unlink()
    again = merge(sources=list(reversed(sources)), format=kind, output=tmp_path / "out", provenance={})
    assert again == first
    assert (first.path.stat().st_ino, first.path.stat().st_mtime_ns) == (stamp.st_ino, stamp.st_mtime_ns)
    assert not hidden(tmp_path)


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "no manifest", "other sources"])
def test_what_stands_is_accepted_only_if_it_is_right(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload, damage: str
) -> None:
    """A damaged output, a missing manifest, or one of other events is replaced by a new merge."""
    sources = spool.nodes(50, payload)
    output = tmp_path / "out"
    first = merge(sources=sources, format=kind, output=output, provenance={})
    data = bytearray(output.read_bytes())
    match damage:
        case "flip":
            data[len(data) // 2 if kind is not OutputFormat.HDF5 else data.index(b"e49")] ^= 1
            output.write_bytes(data)
        case "cut":
            output.write_bytes(data[:-1])
        case "manifest":
            first.manifest.write_text("{}")
        case "no manifest":
            first.manifest.unlink()
        case "other sources":
            merge(sources=sources[:1], format=kind, output=output, provenance={})
    again = merge(sources=sources, format=kind, output=output, provenance={})
    assert again.digest == digest_file(output, kind) == first.digest


def refuse(words: str, error: type[HpcPandaError] = MergeFailed, **request: Any) -> None:
    """The merge is refused, and whatever was there before still is."""
    output: Path = request["output"]
    output.write_bytes(b"what was there before")
    with pytest.raises(error, match=words):
        merge(provenance={}, **request)
    assert output.read_bytes() == b"what was there before"
    assert not hidden(output.parent)


def test_missing_events_are_refused(spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload) -> None:
    """Accepted events that no journal has are named."""
    source = spool.node("a", [(0, 5), (8, 9)], payload)
    more = Source(journal=source.journal, epoch=1, events=IntervalSet.span(0, 9))
    refuse(r"events \[5, 8\) are accepted but", sources=[more], format=kind, output=tmp_path / "out")


def test_double_events_are_refused(spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload) -> None:
    """Events accepted from two journals, or twice in one journal, or both done and failed, are named."""
    a, b = spool.node("a", [(0, 6)], payload), spool.node("b", [(4, 9)], payload)
    twice = spool.node("c", [(0, 6), (2, 3)], payload)
    out = {"format": kind, "output": tmp_path / "out"}
    refuse(r"events \[4, 6\) are accepted from two journals", sources=[a, b], **out)
    refuse(r"events \[0, 6\) are accepted from two journals", sources=[a, a], **out)
    refuse(r"events \[2, 3\) are twice in the journals", sources=[twice], **out)
    lost = IntervalSet.span(1, 2)
    refuse(r"events \[1, 2\) are accepted and failed at once", sources=[a], failed=lost, **out)


def test_damaged_segments_are_refused(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload
) -> None:
    """A flipped bit at any place, a short and a missing segment: the error names segment and events."""
    source = spool.node("a", [(0, 6), (6, 11)], payload)
    segment = segment_path(source.journal, 0)
    data = segment.read_bytes()
    request = {"sources": [source], "format": kind, "output": tmp_path / "out"}
    for at in sorted(random.Random(1).sample(range(len(data)), 25)):
        damaged = bytearray(data)
        damaged[at] ^= 4
        segment.write_bytes(damaged)
        refuse(r"a\.00000\.segment, bytes \d+ to \d+, events \[", CorruptData, **request)
    segment.write_bytes(data[:-1])
    refuse(r"a\.00000\.segment.*events \[6, 11\)", CorruptData, **request)
    segment.unlink()
    refuse(r"a\.00000\.segment is missing", CorruptData, **request)


def test_a_journal_that_cannot_be_read_is_refused(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload
) -> None:
    """A missing journal and a file that is no journal are named."""
    source = spool.node("a", [(0, 6)], payload)
    request = {"sources": [source], "format": kind, "output": tmp_path / "out"}
    source.journal.write_bytes(b"something else")
    refuse(r"a\.journal: not a journal", CorruptData, **request)
    source.journal.unlink()
    refuse(r"a\.journal cannot be read", **request)


def test_what_is_written_wrong_is_noticed(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file does not hold what was handed to the kernel, the output is not replaced."""
    real = os.pwrite
    source = spool.node("a", [(0, 60)], payload)

    def lossy(fd: int, data: memoryview, offset: int) -> int:
        changed = bytearray(data)
        changed[-1] ^= 1
        return real(fd, changed, offset)

    monkeypatch.setattr(os, "pwrite", lossy)
    refuse("reads back wrong", sources=[source], format=kind, output=tmp_path / "out")


def test_an_output_that_cannot_be_written_is_a_failed_merge(
    spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk during the copy or at any sync is told as such, with nothing replaced."""
    source = spool.node("a", [(0, 60)], payload)

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    for name in ("pwrite", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, full)
            refuse("cannot be written.*No space left", sources=[source], format=kind, output=tmp_path / "out")


def test_nothing_is_a_valid_output(spool: Any, tmp_path: Path, kind: OutputFormat) -> None:
    """When every event failed, the merge makes an empty file of the right format."""
    result = merge(
        sources=[], format=kind, output=tmp_path / "out", provenance={}, failed=IntervalSet.span(0, 3)
    )
    assert result.digest == digest_file(result.path, kind)
    assert not result.events


def test_progress_rises_to_one(spool: Any, tmp_path: Path, kind: OutputFormat, payload: Payload) -> None:
    """Progress never falls and ends at 1."""
    told: list[float] = []
    merge(
        sources=spool.nodes(50, payload),
        format=kind,
        output=tmp_path / "out",
        provenance={},
        progress=told.append,
    )
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_result_of_the_wrong_kind_is_refused(spool: Any, tmp_path: Path, kind: OutputFormat) -> None:
    """Bytes for HDF5, or columns for the byte formats, are refused with what to do."""
    wrong: Payload = lambda first, last: (  # noqa: E731
        b"abc" if kind is OutputFormat.HDF5 else {"x": np.zeros(last - first)}
    )
    source = spool.node("a", [(0, 2)], wrong)
    refuse("the payload returned", sources=[source], format=kind, output=tmp_path / "out")
