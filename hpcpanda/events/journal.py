"""The journal: the record that makes finished ranges *done*. Format 1.

A journal belongs to one node agent of one pack and one task. It begins with the magic; frames follow::

    uint32 length of the body | uint32 CRC-32 of kind and body | uint8 kind | body

all little-endian. Kinds: HEADER (JSON, first), SCHEMA (JSON, before the first entry), DONE (an array
of :data:`ENTRY`), FAILED (JSON), MARK (empty; all before it has reached the disk), CLOSE (empty; the
agent ended in order). A DONE frame is written only after the segment bytes it speaks of have been
synced. A frame that is cut short or fails its checksum ends the journal: whatever follows is ignored.

Beside ``NAME.journal`` lie the segment files ``NAME.00000.segment``, ``NAME.00001.segment``, ...
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.adapter import Adapter
from hpcpanda.events.columns import Schema

MAGIC: Final = b"HPJRNL1\n"
_FRAME: Final = struct.Struct("<IIB")
_MAX_BODY: Final = 1 << 28

ENTRY: Final = np.dtype(
    [
        ("epoch", "<u4"),  # of the dispatcher's lease
        ("slot", "<u2"),  # worker slot (core) of the node
        ("segment", "<u2"),  # number of the segment file
        ("first", "<u8"),
        ("last", "<u8"),
        ("offset", "<u8"),  # in the segment file
        ("length", "<u8"),  # bytes there
        ("crc", "<u4"),  # CRC-32 of those bytes
        ("cpu_s", "<f4"),  # processor seconds
        ("start", "<f8"),  # Unix seconds
        ("wall_s", "<f4"),
        ("cores", "<u4"),  # that were held for it, from the slot on; 0 means 1
    ]
)
"""One finished range, or job; 64 bytes."""

Entries = npt.NDArray[np.void]


def core_seconds(entries: Entries) -> float:
    """Core-seconds that the ranges or jobs took."""
    return float((entries["wall_s"].astype(np.float64) * np.maximum(entries["cores"], 1)).sum())


class FrameKind(IntEnum):
    """What a frame holds."""

    HEADER = 1
    SCHEMA = 2
    DONE = 3
    FAILED = 4
    MARK = 5
    CLOSE = 6


_KINDS: Final = frozenset(kind.value for kind in FrameKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHeader:
    """Whose journal it is."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    task_id: int
    allocation_id: str
    pack_id: str
    incarnation: int
    rank: int
    host: str
    cores: int
    started: float
    """Unix seconds."""
    format: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedInEpoch:
    """Failed events and the epoch of the lease under which they were tried."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    epoch: int
    events: tuple[FailedEvent, ...]


_HEADER: Adapter[JournalHeader] = Adapter(JournalHeader)
_SCHEMA: Adapter[Schema] = Adapter(Schema)
_FAILED: Adapter[FailedInEpoch] = Adapter(FailedInEpoch)


def frame(kind: FrameKind, body: bytes = b"") -> bytes:
    """One frame as bytes."""
    crc = zlib.crc32(body, zlib.crc32(bytes((kind,))))
    return _FRAME.pack(len(body), crc, kind) + body


def header_frame(header: JournalHeader) -> bytes:
    """The magic and the first frame."""
    return MAGIC + frame(FrameKind.HEADER, _HEADER.dump_json(header))


def schema_frame(schema: Schema) -> bytes:
    """The frame that fixes the columns of all entries."""
    return frame(FrameKind.SCHEMA, _SCHEMA.dump_json(schema))


def done_frame(entries: Entries) -> bytes:
    """The frame that makes ranges done."""
    return frame(FrameKind.DONE, entries.tobytes())


def failed_frame(failed: FailedInEpoch) -> bytes:
    """The frame that sets events aside."""
    return frame(FrameKind.FAILED, _FAILED.dump_json(failed))


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPart:
    """What a stretch of a journal says."""

    header: JournalHeader | None
    schema: Schema | None
    entries: Entries
    failed: tuple[FailedInEpoch, ...]
    closed: bool
    """Whether the agent ended in order."""
    next_offset: int
    """Where the next stretch begins."""


def parse_journal(data: bytes, *, start: int = 0, durable_only: bool = False) -> JournalPart:
    """Read the frames in ``data``, which begin at file offset ``start``.

    Args:
        data: bytes of the journal from ``start`` on.
        start: 0, or the ``next_offset`` of an earlier part.
        durable_only: stop after the last MARK: a living agent may not have synced what follows.

    Raises:
        CorruptData: ``start`` is 0 and the data is not a journal, or a checked frame has a body that
            cannot be understood.
    """
    at = 0
    if start == 0:
        if not (data.startswith(MAGIC) or MAGIC.startswith(data)):
            raise CorruptData("not a journal: the file does not begin with the journal magic")
        at = len(MAGIC)
    frames = _frames(data, at)
    if durable_only:
        while frames and frames[-1][0] not in (FrameKind.MARK, FrameKind.CLOSE):
            frames.pop()
    end = frames[-1][2] if frames else 0
    return _interpret([(kind, body) for kind, body, _ in frames], start + end)


def _frames(data: bytes, at: int) -> list[tuple[FrameKind, memoryview, int]]:
    """All whole and right frames from ``at`` on, each with the offset behind it."""
    view = memoryview(data)
    found: list[tuple[FrameKind, memoryview, int]] = []
    while at + _FRAME.size <= len(data):
        length, crc, kind = _FRAME.unpack_from(data, at)
        behind = at + _FRAME.size + length
        if length > _MAX_BODY or behind > len(data):
            break
        body = view[at + _FRAME.size : behind]
        if zlib.crc32(body, zlib.crc32(bytes((kind,)))) != crc or kind not in _KINDS:
            break
        found.append((FrameKind(kind), body, behind))
        at = behind
    return found


def _interpret(frames: list[tuple[FrameKind, memoryview]], next_offset: int) -> JournalPart:
    header: JournalHeader | None = None
    schema: Schema | None = None
    closed = False
    done: list[memoryview] = []
    failed: list[FailedInEpoch] = []
    try:
        for kind, body in frames:
            match kind:
                case FrameKind.HEADER:
                    header = _HEADER.validate_json(bytes(body))
                case FrameKind.SCHEMA:
                    schema = _SCHEMA.validate_json(bytes(body))
                case FrameKind.DONE:
                    done.append(body)
                case FrameKind.FAILED:
                    failed.append(_FAILED.validate_json(bytes(body)))
                case FrameKind.CLOSE:
                    closed = True
                case FrameKind.MARK:
                    pass
        entries = np.frombuffer(b"".join(done), dtype=ENTRY)
    except (ValidationError, ValueError) as problem:
        raise CorruptData(f"a journal frame has a valid checksum but no meaning: {problem}") from problem
    return JournalPart(
        header=header,
        schema=schema,
        entries=entries,
        failed=tuple(failed),
        closed=closed,
        next_offset=next_offset,
    )


def read_journal(path: Path, *, start: int = 0, durable_only: bool = False) -> JournalPart:
    """Read a journal file from ``start`` on; see :func:`parse_journal`."""
    with path.open("rb") as file:
        file.seek(start)
        return parse_journal(file.read(), start=start, durable_only=durable_only)


def recover_journal(path: Path) -> JournalPart:
    """Read the journal of an agent that no longer runs: make what can be read durable, then trust it."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return read_journal(path)


def segment_path(journal: Path, number: int) -> Path:
    """The segment file with that number beside a journal."""
    return journal.with_name(f"{journal.name.removesuffix('.journal')}.{number:05d}.segment")


def entries_within(entries: Entries, epoch: int, events: IntervalSet) -> Entries:
    """The entries of an epoch whose whole range lies in ``events``."""
    if not events:
        return entries[:0]
    bounds = np.array(events.bounds, dtype=np.uint64)
    at = np.searchsorted(bounds, entries["first"], side="right")
    inside = (at % 2 == 1) & (entries["epoch"] == epoch)
    inside[inside] = entries["last"][inside] <= bounds[at[inside]]
    within: Entries = entries[inside]
    return within


def events_of(entries: Entries) -> IntervalSet:
    """The events of the entries as an interval set."""
    if not len(entries):
        return IntervalSet()
    order = np.argsort(entries["first"], kind="stable")
    first, last = entries["first"][order], entries["last"][order]
    reach = np.maximum.accumulate(last)
    starts = np.ones(len(first), dtype=bool)
    starts[1:] = first[1:] > reach[:-1]
    ends = np.append(np.flatnonzero(starts)[1:] - 1, len(first) - 1)
    bounds = np.column_stack((first[starts], reach[ends])).ravel()
    return IntervalSet(tuple(bounds.tolist()))
