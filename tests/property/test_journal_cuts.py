"""A journal that is cut, damaged or read in pieces never says a wrong thing."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.columns import Column, Schema
from hpcpanda.events.journal import (
    ENTRY,
    MAGIC,
    Entries,
    FailedInEpoch,
    FrameKind,
    JournalHeader,
    done_frame,
    entries_within,
    events_of,
    failed_frame,
    frame,
    header_frame,
    parse_journal,
    read_journal,
    schema_frame,
    segment_path,
)

HEADER = JournalHeader(
    task_id=7, allocation_id="a-1", pack_id="p-1", incarnation=2, rank=3, host="n1", cores=4, started=1.5
)
SCHEMA = Schema(columns=(Column(name="x", dtype="<f8"), Column(name="y", dtype="<i4", item_shape=(2,))))


def entries(*ranges: tuple[int, int], epoch: int = 1) -> Entries:
    """Entries with recognisable contents."""
    new = np.zeros(len(ranges), dtype=ENTRY)
    for k, (first, last) in enumerate(ranges):
        new[k]["epoch"], new[k]["first"], new[k]["last"] = epoch, first, last
        new[k]["offset"], new[k]["length"], new[k]["crc"] = (
            first * 8,
            (last - first) * 8,
            zlib.crc32(b"%d" % first),
        )
    return new


FAILED = FailedInEpoch(epoch=1, events=(FailedEvent(event=30, error="no"),))
FRAMES = [
    header_frame(HEADER),
    schema_frame(SCHEMA),
    done_frame(entries((0, 5), (5, 6))),
    frame(FrameKind.MARK),
    done_frame(entries((6, 9))),
    failed_frame(FAILED),
    frame(FrameKind.MARK),
    done_frame(entries((20, 25), (10, 12), (31, 40))),
    frame(FrameKind.MARK),
    done_frame(entries((50, 60))),
]
WHOLE = b"".join(FRAMES)
ALL = parse_journal(WHOLE).entries
ENDS = [sum(map(len, FRAMES[: k + 1])) for k in range(len(FRAMES))]
COUNTS = [sum(len(parse_journal(MAGIC + f).entries) for f in FRAMES[1 : k + 1]) for k in range(len(FRAMES))]
MARKED = [
    max([0] + [COUNTS[j] for j in range(k + 1) if FRAMES[j] == frame(FrameKind.MARK)])
    for k in range(len(FRAMES))
]


def expected(size: int, table: list[int]) -> int:
    """Entries that a cut after ``size`` bytes leaves."""
    return max([0] + [n for end, n in zip(ENDS, table, strict=True) if end <= size])


def test_a_journal_cut_at_any_byte_gives_the_entries_before_the_cut() -> None:
    """At every length: exactly the entries of the whole frames, never an exception, never another entry."""
    for size in range(len(WHOLE) + 1):
        part = parse_journal(WHOLE[:size])
        assert len(part.entries) == expected(size, COUNTS)
        assert part.entries.tobytes() == ALL[: len(part.entries)].tobytes()
        assert part.next_offset <= size or size < len(MAGIC)


def test_only_marked_entries_are_durable() -> None:
    """At every length, what a living agent's journal is trusted for ends at the last mark."""
    for size in range(len(WHOLE) + 1):
        part = parse_journal(WHOLE[:size], durable_only=True)
        assert len(part.entries) == expected(size, MARKED)
        assert part.entries.tobytes() == ALL[: len(part.entries)].tobytes()


def test_reading_can_go_on_from_any_cut() -> None:
    """After a cut at any byte, reading on from the offset given yields the rest, without gap or repetition."""
    for durable_only in (False, True):
        whole = parse_journal(WHOLE, durable_only=durable_only).entries.tobytes()
        for size in range(len(WHOLE) + 1):
            head = parse_journal(WHOLE[:size], durable_only=durable_only)
            tail = parse_journal(WHOLE[head.next_offset :], start=head.next_offset, durable_only=durable_only)
            assert head.entries.tobytes() + tail.entries.tobytes() == whole


@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_ends_the_journal(bit: int) -> None:
    """At every byte: a damaged frame and all after it are ignored, or the file is called no journal."""
    for at in range(len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[at] ^= 1 << bit
        if at < len(MAGIC):
            with pytest.raises(CorruptData, match="magic"):
                parse_journal(bytes(damaged))
            continue
        part = parse_journal(bytes(damaged))
        assert len(part.entries) == expected(at, COUNTS)
        assert part.entries.tobytes() == ALL[: len(part.entries)].tobytes()


@given(st.lists(st.integers(0, len(WHOLE)), max_size=8), st.booleans())
def test_reading_in_pieces_equals_reading_at_once(cuts: list[int], durable_only: bool) -> None:
    """A journal that grows while it is read gives every entry, failure and header once."""
    start, got, failed, headers = 0, b"", [], []
    for size in [*sorted(cuts), len(WHOLE)]:
        part = parse_journal(WHOLE[start:size], start=start, durable_only=durable_only)
        got += part.entries.tobytes()
        failed += part.failed
        headers += [part.header] if part.header else []
        start = part.next_offset
    at_once = parse_journal(WHOLE, durable_only=durable_only)
    assert got == at_once.entries.tobytes()
    assert failed == list(at_once.failed) == [FAILED]
    assert headers == [HEADER]


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_garbage_after_whole_frames_adds_nothing(garbage: bytes) -> None:
    """What a torn write leaves behind the last frame is not read as entries."""
    part = parse_journal(WHOLE + garbage)
    assert part.entries.tobytes() == ALL.tobytes()


@given(st.binary(max_size=100))
def test_a_file_that_is_no_journal_is_called_so(data: bytes) -> None:
    """Other files raise CorruptData; a file that may become a journal is empty."""
    if MAGIC.startswith(data):
        assert len(parse_journal(data).entries) == 0
    elif not data.startswith(MAGIC):
        with pytest.raises(CorruptData, match="not a journal"):
            parse_journal(data)


@pytest.mark.parametrize(
    "bad", [frame(FrameKind.HEADER, b"{}"), frame(FrameKind.SCHEMA, b"["), frame(FrameKind.DONE, b"x" * 63)]
)
def test_a_frame_with_a_right_checksum_and_no_meaning_is_an_error(bad: bytes) -> None:
    """Damage before the checksum was made is reported, not skipped."""
    with pytest.raises(CorruptData, match="no meaning"):
        parse_journal(MAGIC + bad)


def test_header_and_columns_come_back(tmp_path: Path) -> None:
    """The header and the schema are those written, and segment files are named after the journal."""
    path = tmp_path / "x.journal"
    path.write_bytes(WHOLE)
    part = read_journal(path)
    assert (part.header, part.schema, part.closed) == (HEADER, SCHEMA, False)
    assert segment_path(path, 12) == tmp_path / "x.00012.segment"
    assert parse_journal(WHOLE + frame(FrameKind.CLOSE)).closed


spans = st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda t: (t[0], t[0] + t[1]))


@given(st.lists(spans, max_size=30), st.lists(spans, max_size=8))
def test_entries_are_accepted_whole_or_not_at_all(
    ranges: list[tuple[int, int]], allowed: list[tuple[int, int]]
) -> None:
    """An entry counts only if its epoch is right and all its events are accepted."""
    events = IntervalSet()
    for span in allowed:
        events = events.add(*span)
    both = np.concatenate((entries(*ranges, epoch=3), entries(*ranges, epoch=4)))
    found = entries_within(both, 3, events)
    assert [(int(e["first"]), int(e["last"])) for e in found] == [r for r in ranges if events.covers(*r)]
    assert all(e["epoch"] == 3 for e in found)
    union = IntervalSet()
    for r in ranges:
        union = union.add(*r)
    assert events_of(both) == union
