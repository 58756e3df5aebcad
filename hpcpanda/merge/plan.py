"""What a merge has to do: the accepted ranges of all journals, in event order, checked to be whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hpcpanda.domain.errors import CorruptData, MergeFailed
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.columns import BYTES, Schema
from hpcpanda.events.journal import ENTRY, Entries, entries_within, read_journal, segment_path

Numbers = npt.NDArray[Any]
"""An array of integers."""

_FRAGMENTS_SHOWN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The accepted part of one journal."""

    journal: Path
    epoch: int
    events: IntervalSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """Ranges in event order, a row of each array a range."""

    first: Numbers
    last: Numbers
    segment: Numbers
    """Index into :attr:`Plan.segments`."""
    offset: Numbers
    """Of the range's bytes in the segment file."""
    length: Numbers
    crc: Numbers
    source: Numbers
    """Index into :attr:`Plan.sources`."""

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is to be merged."""

    sources: tuple[Source, ...]
    schema: Schema
    segments: tuple[Path, ...]
    ranges: Ranges
    events: IntervalSet
    failed: IntervalSet
    failures: Mapping[int, FailedEvent]
    """What the journals say of failed events."""

    @property
    def size(self) -> int:
        """Bytes to read from the segments."""
        return int(self.ranges.length.sum())

    def place(self, row: int) -> str:
        """Where a range lies, for an error message."""
        r = self.ranges
        return (
            f"segment {self.segments[int(r.segment[row])]}, bytes {int(r.offset[row])} to "
            f"{int(r.offset[row] + r.length[row])}, events [{int(r.first[row])}, {int(r.last[row])})"
        )


def make_plan(sources: Sequence[Source], failed: IntervalSet = EMPTY) -> Plan:
    """Read the journals and check that their accepted ranges make up the accepted events, once each.

    Raises:
        MergeFailed: events are missing or double, or the journals' columns differ.
        CorruptData: a journal cannot be understood.
    """
    sources = tuple(sorted(sources, key=lambda s: (str(s.journal), s.epoch, s.events.bounds)))
    events = _accepted(sources, failed)
    parts: list[Entries] = []
    kept: list[int] = []
    schemas: list[tuple[Path, Schema]] = []
    failures: dict[int, FailedEvent] = {}
    for number, source in enumerate(sources):
        schema, entries, told = _read(source)
        failures.update((f.event, f) for f in told if failed and f.event in failed)
        if len(entries):
            parts.append(entries)
            kept.append(number)
            schemas.append((source.journal, schema))
    schema = _common_schema(schemas)
    entries = np.concatenate(parts) if parts else _no_entries()
    owner = np.repeat(np.array(kept, dtype=np.int64), [len(p) for p in parts])
    order = np.argsort(entries["first"], kind="stable")
    entries, owner = entries[order], owner[order]
    found, double = _union(entries["first"].astype(np.int64), entries["last"].astype(np.int64))
    if double:
        raise MergeFailed(f"events {_shorten(double)} are twice in the journals; nothing was merged")
    if found != events:
        raise MergeFailed(
            f"events {_shorten(events - found)} are accepted but in none of the journals given; nothing was merged"
        )
    segments, index = _segments(sources, owner, entries)
    ranges = Ranges(
        first=entries["first"].astype(np.int64),
        last=entries["last"].astype(np.int64),
        segment=index,
        offset=entries["offset"].astype(np.int64),
        length=entries["length"].astype(np.int64),
        crc=entries["crc"].astype(np.int64),
        source=owner,
    )
    return Plan(
        sources=sources,
        schema=schema,
        segments=segments,
        ranges=ranges,
        events=events,
        failed=failed,
        failures=failures,
    )


def accepted_events(sources: Sequence[Source]) -> IntervalSet:
    """The union of the sources' events.

    Raises:
        MergeFailed: two sources have the same events.
    """
    bounds = np.concatenate([np.array(s.events.bounds, dtype=np.int64) for s in sources] or [_no_numbers()])
    first, last = bounds[::2], bounds[1::2]
    order = np.argsort(first, kind="stable")
    events, double = _union(first[order], last[order])
    if double:
        raise MergeFailed(f"events {_shorten(double)} are accepted from two journals; nothing was merged")
    return events


def _accepted(sources: Sequence[Source], failed: IntervalSet) -> IntervalSet:
    events = accepted_events(sources)
    if both := events & failed:
        raise MergeFailed(f"events {_shorten(both)} are accepted and failed at once; nothing was merged")
    return events


def _read(source: Source) -> tuple[Schema, Entries, list[FailedEvent]]:
    """The columns and accepted entries of one source, and what it says of failed events."""
    if not source.events:
        return BYTES, _no_entries(), []
    try:
        part = read_journal(source.journal)
    except OSError as problem:
        raise MergeFailed(f"journal {source.journal} cannot be read: {problem.strerror}") from problem
    except CorruptData as problem:
        raise CorruptData(f"journal {source.journal}: {problem}") from problem
    entries = entries_within(part.entries, source.epoch, source.events)
    if len(entries) and part.schema is None:
        raise CorruptData(f"journal {source.journal} has ranges but does not say their columns")
    return part.schema or BYTES, entries, [event for group in part.failed for event in group.events]


def _common_schema(schemas: Sequence[tuple[Path, Schema]]) -> Schema:
    if not schemas:
        return BYTES
    named, common = schemas[0]
    for journal, schema in schemas:
        if difference := common.difference(schema):
            raise MergeFailed(f"{difference} (journals {named} and {journal}); nothing was merged")
    return common


def _segments(
    sources: Sequence[Source], owner: Numbers, entries: Entries
) -> tuple[tuple[Path, ...], Numbers]:
    """The segment files in use, and for each entry the number of its file."""
    keys, index = np.unique(owner * 65536 + entries["segment"].astype(np.int64), return_inverse=True)
    paths = tuple(segment_path(sources[key // 65536].journal, key % 65536) for key in keys.tolist())
    return paths, index


def _union(first: Numbers, last: Numbers) -> tuple[IntervalSet, IntervalSet]:
    """Union of ranges sorted by begin, and the events that are in more than one of them."""
    if not len(first):
        return EMPTY, EMPTY
    reach = np.maximum.accumulate(last)
    starts = np.ones(len(first), dtype=bool)
    starts[1:] = first[1:] > reach[:-1]
    ends = np.append(np.flatnonzero(starts)[1:] - 1, len(first) - 1)
    union = IntervalSet(tuple(np.column_stack((first[starts], reach[ends])).ravel().tolist()))
    again = np.flatnonzero(first[1:] < reach[:-1]) + 1
    if not len(again):
        return union, EMPTY
    double, _ = _union(first[again], np.minimum(last[again], reach[again - 1]))
    return union, double


def _shorten(events: IntervalSet) -> str:
    shown = IntervalSet(events.bounds[: 2 * _FRAGMENTS_SHOWN])
    more = events.fragments - shown.fragments
    return f"{shown}" + (f" and {more} more ranges" if more else "")


def _no_entries() -> Entries:
    return np.empty(0, dtype=ENTRY)


def _no_numbers() -> Numbers:
    return np.empty(0, dtype=np.int64)
