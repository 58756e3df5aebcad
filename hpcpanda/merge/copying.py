"""Copy ranges from segments into their places in the output, and check what has arrived.

Ranges are handled in windows of a few megabytes in event order, several windows at a time by a small
pool of threads. Each window is read with as few reads as the segments allow, every range is checked
against the CRC-32 of its journal entry, and each stream's part of the window is written with one
write. The CRC-32 of every piece handed to the kernel is kept; the check reads the file again piece
by piece, compares, and takes the content digest from what it reads.
"""

from __future__ import annotations

import os
import queue
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from hpcpanda.domain.errors import CorruptData, MergeFailed
from hpcpanda.merge.digest import BLOCK, block_hash, combine
from hpcpanda.merge.files import OpenFiles, read_at, write_at
from hpcpanda.merge.layout import Layout
from hpcpanda.merge.plan import Numbers, Plan

WINDOW: Final = 1 << 22
"""Bytes of ranges copied in one step; a range of twice this size or more is copied bit by bit."""
_STEP: Final = 1 << 18
"""Bytes read at once and then checked: they stay in the processor's cache."""

PIECE: Final = np.dtype(
    [
        ("stream", "<i8"),
        ("at", "<i8"),  # in the stream
        ("offset", "<i8"),  # in the file, of the lead
        ("lead", "<i8"),  # bytes that are not content
        ("length", "<i8"),  # bytes of content behind them
        ("crc", "<i8"),  # of lead and content
    ]
)
"""A stretch of the output that lies in one stream and one block of it."""

Done = Callable[[int], None]
Piece = tuple[int, int, int, int, int, int]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class _Desk:
    """What one thread works with: open segments and a buffer that grows to the largest window."""

    segments: OpenFiles
    buffer: memoryview

    def room(self, size: int) -> memoryview:
        """A part of the buffer."""
        if size > len(self.buffer):
            self.buffer = memoryview(bytearray(size))
        return self.buffer[:size]


@contextmanager
def _desks(paths: Sequence[Path], count: int) -> Iterator[queue.SimpleQueue[_Desk]]:
    desks = [_Desk(OpenFiles(paths), memoryview(b"")) for _ in range(count)]
    free: queue.SimpleQueue[_Desk] = queue.SimpleQueue()
    for desk in desks:
        free.put(desk)
    try:
        yield free
    finally:
        for desk in desks:
            desk.segments.close()


class Copier:
    """Copies all ranges of a plan into an output file laid out for them."""

    def __init__(self, plan: Plan, layout: Layout, fd: int, pool: ThreadPoolExecutor, threads: int) -> None:
        self._plan = plan
        self._layout = layout
        self._fd = fd
        self._pool = pool
        self._threads = threads

    def copy(self, done: Done) -> Numbers:
        """Copy; gives the pieces written. ``done`` is told the bytes copied so far, now and then.

        Raises:
            CorruptData: a segment is short or fails its checksum.
        """
        windows = list(_windows(self._plan.ranges.length))
        ends = np.cumsum(self._plan.ranges.length)
        pieces: list[Numbers] = []
        with _desks(self._plan.segments, self._threads) as free:

            def step(window: tuple[int, int]) -> Numbers:
                desk = free.get()
                try:
                    return np.array(self._window(desk, *window), dtype=PIECE)
                finally:
                    free.put(desk)

            for (_, b), written in zip(
                windows, bounded_map(self._pool, step, windows, 2 * self._threads), strict=True
            ):
                pieces.append(written)
                done(int(ends[b - 1]))
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=PIECE)

    def _window(self, desk: _Desk, a: int, b: int) -> list[Piece]:
        length = self._plan.ranges.length
        if b - a == 1 and length[a] >= 2 * WINDOW:
            return self._large(desk, a)
        data, begins = self._read(desk, a, b)
        cells = self._layout.cells
        lengths = cells.lengths(a, b)
        starts = cells.starts(lengths) + begins[:, None]
        self._check_headers(data, a, b, begins)
        if self._layout.leads is not None:
            return self._place_with_leads(data, a, begins, lengths)
        pieces: list[Piece] = []
        for stream in range(len(self._layout.streams)):
            begin = starts[:, stream]
            spans = zip(begin.tolist(), (begin + lengths[:, stream]).tolist(), strict=True)
            views = [data[i:j] for i, j in spans]
            whole = views[0] if len(views) == 1 else memoryview(b"".join(views))
            offset = self._layout.file_offset(stream, a)
            pieces += self._write(stream, cells.at(stream, a), offset, whole)
        return pieces

    def _read(self, desk: _Desk, a: int, b: int) -> tuple[memoryview, Numbers]:
        """All bytes of the ranges, and where each of them begins there; checked."""
        r = self._plan.ranges
        segment, offset, length = r.segment[a:b], r.offset[a:b], r.length[a:b]
        order = np.lexsort((offset, segment))
        ends = np.cumsum(length[order])
        begins = np.empty(b - a, dtype=np.int64)
        begins[order] = ends - length[order]
        fresh = np.ones(b - a, dtype=bool)
        fresh[1:] = (
            (np.diff(segment[order]) != 0)
            | (offset[order][1:] != offset[order][:-1] + length[order][:-1])
            | (np.diff(ends // _STEP) != 0)
        )
        heads = np.flatnonzero(fresh).tolist()
        data = desk.room(int(ends[-1]))
        rows, stops, crcs = (order + a).tolist(), ends.tolist(), r.crc[a:b][order].tolist()
        at = 0
        for head, tail in zip(heads, [*heads[1:], b - a], strict=True):
            begin = int(offset[rows[head] - a])
            self._fill(desk, rows[head:tail], begin, data[at : stops[tail - 1]])
            for k in range(head, tail):
                if zlib.crc32(data[at : stops[k]]) != crcs[k]:
                    raise self._bad_checksum(rows[k])
                at = stops[k]
        return data, begins

    def _fill(self, desk: _Desk, rows: Sequence[int], offset: int, into: memoryview) -> None:
        """Read from the segment in which these ranges follow each other."""
        ranges = self._plan.ranges
        fd = desk.segments.fd(int(ranges.segment[rows[0]]))
        try:
            read_at(fd, offset, into)
        except CorruptData as problem:
            size = os.fstat(fd).st_size
            short = next((r for r in rows if ranges.offset[r] + ranges.length[r] > size), rows[0])
            raise CorruptData(f"{problem} ({self._plan.place(short)}); nothing was merged") from problem

    def _bad_checksum(self, row: int) -> CorruptData:
        return CorruptData(f"checksum wrong: {self._plan.place(row)}; nothing was merged")

    def _check_headers(self, data: memoryview, a: int, b: int, begins: Numbers) -> None:
        size = self._layout.cells.header
        if not size:
            return
        found = np.frombuffer(b"".join([data[i : i + size] for i in begins.tolist()]), dtype="<u8")
        self._compare_headers(found.reshape(b - a, -1), a)

    def _compare_headers(self, found: Numbers, a: int) -> None:
        expected = self._layout.cells.counted(a, a + len(found))
        wrong = np.flatnonzero((found.astype(np.int64) != expected).any(axis=1))
        if len(wrong):
            place = self._plan.place(a + int(wrong[0]))
            raise CorruptData(f"row counts do not fit the columns: {place}; nothing was merged")

    def _place_with_leads(self, data: memoryview, a: int, begins: Numbers, lengths: Numbers) -> list[Piece]:
        """One write for ranges that follow each other, each behind its lead."""
        assert self._layout.leads is not None
        lead = self._layout.lead
        views: list[memoryview] = []
        pieces: list[Piece] = []
        at, offset = self._layout.cells.at(0, a), self._layout.file_offset(0, a) - lead
        start = offset
        heads = memoryview(self._layout.leads[a : a + len(begins)].tobytes())
        for k, (i, n) in enumerate(zip(begins.tolist(), lengths[:, 0].tolist(), strict=True)):
            head, body = heads[k * lead : (k + 1) * lead], data[i : i + n]
            views += (head, body)
            pieces += _pieces(0, at, offset, body, head)
            at, offset = at + n, offset + lead + n
        write_at(self._fd, start, b"".join(views))
        return pieces

    def _large(self, desk: _Desk, row: int) -> list[Piece]:
        """One range too large to be held: copied a window at a time."""
        r, cells = self._plan.ranges, self._layout.cells
        source, lead = int(r.offset[row]), self._layout.lead
        header = desk.room(cells.header)
        self._fill(desk, [row], source, header)
        crc = zlib.crc32(header)
        if len(header):
            self._compare_headers(np.frombuffer(bytes(header), dtype="<u8").reshape(1, -1), row)
        lengths = cells.lengths(row, row + 1)
        starts = cells.starts(lengths)
        pieces: list[Piece] = []
        for stream in range(len(self._layout.streams)):
            size, at = int(lengths[0, stream]), cells.at(stream, row)
            offset = self._layout.file_offset(stream, row)
            begin = source + int(starts[0, stream])
            for moved in range(0, size, WINDOW):
                part = desk.room(min(WINDOW, size - moved))
                self._fill(desk, [row], begin + moved, part)
                crc = zlib.crc32(part, crc)
                head = b"" if moved or self._layout.leads is None else self._layout.leads[row].tobytes()
                if head:
                    write_at(self._fd, offset - lead, head)
                pieces += self._write(stream, at + moved, offset + moved, part, head)
        if crc != int(r.crc[row]):
            raise self._bad_checksum(row)
        return pieces

    def _write(self, stream: int, at: int, offset: int, data: memoryview, head: bytes = b"") -> list[Piece]:
        """Write a stretch of a stream; ``head`` is already in front of it."""
        write_at(self._fd, offset, data)
        return _pieces(stream, at, offset - len(head), data, memoryview(head))


def _pieces(stream: int, at: int, offset: int, data: memoryview, head: memoryview) -> list[Piece]:
    """Cut what is written at ``offset`` where blocks of the digest end."""
    found: list[Piece] = []
    lead, crc = len(head), zlib.crc32(head)
    while len(data) or lead:
        part = data[: BLOCK - at % BLOCK]
        found.append((stream, at, offset, lead, len(part), zlib.crc32(part, crc)))
        offset += lead + len(part)
        at, data, lead, crc = at + len(part), data[len(part) :], 0, 0
    return found


def check(
    path: Path, layout: Layout, pieces: Numbers, pool: ThreadPoolExecutor, threads: int, done: Done
) -> str:
    """Read the output again, compare it to what was written, and give the digest of what was read.

    Raises:
        MergeFailed: the file does not hold what was written.
    """
    pieces = pieces[np.lexsort((pieces["offset"], pieces["stream"]))]
    _check_cover(layout, pieces)
    content = pieces[pieces["length"] > 0]
    key = content["stream"] * (1 << 44) + content["at"] // BLOCK
    cuts = np.flatnonzero(np.diff(key)) + 1
    empty = pieces[pieces["length"] == 0]
    groups = [g for g in [*np.split(content, cuts), empty] if len(g)]
    hashes: dict[int, list[bytes]] = {n: [] for n in range(len(layout.streams))}
    with _desks([path], threads) as free:

        def step(group: Numbers) -> bytes:
            desk = free.get()
            try:
                return _block(desk, group)
            finally:
                free.put(desk)

        read = 0
        for group, found in zip(groups, bounded_map(pool, step, groups, 2 * threads), strict=True):
            if group[0]["length"]:
                hashes[int(group[0]["stream"])].append(found)
            read += int(group["length"].sum())
            done(read)
    return combine((stream, hashes[n]) for n, stream in enumerate(layout.streams))


def _check_cover(layout: Layout, pieces: Numbers) -> None:
    """The pieces follow each other without gap from the begin to the end of each stream."""
    for number, stream in enumerate(layout.streams):
        own = pieces[pieces["stream"] == number]
        ends = np.concatenate(([0], own["at"] + own["length"]))
        if ends[-1] != stream.size or (own["at"] != ends[:-1]).any():
            raise MergeFailed(f"stream {number} of the output was not written whole; nothing was replaced")


def _block(desk: _Desk, group: Numbers) -> bytes:
    """Hash of the content of pieces that lie one after the other in the file."""
    offset, lead, length, crc = (group[name].tolist() for name in ("offset", "lead", "length", "crc"))
    stop = [o + a + n for o, a, n in zip(offset, lead, length, strict=True)]
    fd = desk.segments.fd(0)

    def content() -> Iterator[memoryview]:
        k = 0
        while k < len(offset):
            if stop[k] - offset[k] > _STEP:
                yield from _stepwise(fd, desk, offset[k], lead[k], stop[k], crc[k])
                k += 1
                continue
            end = bisect_right(stop, offset[k] + _STEP, lo=k + 1)
            data = desk.room(stop[end - 1] - offset[k])
            read_at(fd, offset[k], data)
            for n in range(k, end):
                part = data[offset[n] - offset[k] : stop[n] - offset[k]]
                if zlib.crc32(part) != crc[n]:
                    raise _reads_back_wrong(offset[n])
                yield part[lead[n] :]
            k = end

    return block_hash(content())


def _stepwise(fd: int, desk: _Desk, offset: int, lead: int, stop: int, crc: int) -> Iterator[memoryview]:
    """A long piece in parts that stay in the processor's cache."""
    found = 0
    for at in range(offset, stop, _STEP):
        part = desk.room(min(_STEP, stop - at))
        read_at(fd, at, part)
        found = zlib.crc32(part, found)
        yield part if at > offset else part[lead:]
    if found != crc:
        raise _reads_back_wrong(offset)


def _reads_back_wrong(offset: int) -> MergeFailed:
    return MergeFailed(f"the output reads back wrong at byte {offset}; nothing was replaced")


def _windows(length: Numbers) -> Iterator[tuple[int, int]]:
    """Cut ranges into windows; a large range is a window of its own."""
    if not len(length):
        return
    large = length >= 2 * WINDOW
    key = np.cumsum(np.where(large, WINDOW, length)) // WINDOW
    fresh = np.ones(len(length), dtype=bool)
    fresh[1:] = (np.diff(key) != 0) | large[1:] | large[:-1]
    starts = np.flatnonzero(fresh).tolist()
    yield from zip(starts, [*starts[1:], len(length)], strict=True)


def bounded_map(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Results in order, with at most ``ahead`` of them under way; the first error ends all."""
    running: list[Future[R]] = []
    try:
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= ahead:
                yield running.pop(0).result()
        while running:
            yield running.pop(0).result()
    finally:
        for future in running:
            future.cancel()
        wait(running)


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))
