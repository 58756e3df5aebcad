"""Copy ranges from segments into their places in the output.

Each stream's part of a window is written with one write. The CRC-32 of every piece handed to the kernel
is kept, for the check that reads the file again.
"""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from hpcpanda.domain.errors import CorruptData
from hpcpanda.merge import reading
from hpcpanda.merge.digest import BLOCK
from hpcpanda.merge.files import write_at
from hpcpanda.merge.layout import Layout, Leads
from hpcpanda.merge.plan import Numbers, Plan
from hpcpanda.merge.reading import Desk, Done, Reader

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

Piece = tuple[int, int, int, int, int, int]
_NOTHING: Final = memoryview(b"")


class Copier:
    """Copies all ranges of a plan into an output file laid out for them."""

    def __init__(self, plan: Plan, layout: Layout, fd: int, pool: ThreadPoolExecutor, threads: int) -> None:
        self._plan = plan
        self._reader = Reader(plan)
        self._layout = layout
        self._fd = fd
        self._pool = pool
        self._threads = threads

    def copy(self, done: Done) -> Numbers:
        """Copy; gives the pieces written. ``done`` is told the bytes copied so far, now and then.

        Raises:
            CorruptData: a segment is short or fails its checksum.
        """
        ends = np.cumsum(self._plan.ranges.length)
        pieces: list[Numbers] = []

        def step(desk: Desk, a: int, b: int) -> Numbers:
            return np.array(self._window(desk, a, b), dtype=PIECE)

        for b, written in self._reader.each_window(step, self._pool, self._threads):
            pieces.append(written)
            done(int(ends[b - 1]))
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=PIECE)

    def _window(self, desk: Desk, a: int, b: int) -> list[Piece]:
        length = self._plan.ranges.length
        if reading.is_large(int(length[a])):
            return self._large(desk, a)
        data, begins = self._reader.read(desk, a, b)
        cells = self._layout.cells
        lengths = cells.lengths(a, b)
        starts = cells.starts(lengths) + begins[:, None]
        self._check_headers(data, a, b, begins)
        if self._layout.leads is not None:
            return self._place_with_leads(self._layout.leads, data, a, begins, lengths)
        pieces: list[Piece] = []
        for stream in range(len(self._layout.streams)):
            begin = starts[:, stream]
            spans = zip(begin.tolist(), (begin + lengths[:, stream]).tolist(), strict=True)
            views = [data[i:j] for i, j in spans]
            whole = views[0] if len(views) == 1 else memoryview(b"".join(views))
            offset = self._layout.file_offset(stream, a)
            pieces += self._write(stream, cells.at(stream, a), offset, whole)
        return pieces

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

    def _place_with_leads(
        self, leads: Leads, data: memoryview, a: int, begins: Numbers, lengths: Numbers
    ) -> list[Piece]:
        """One write for ranges that follow each other, each behind its lead."""
        views: list[memoryview] = []
        pieces: list[Piece] = []
        at, offset = self._layout.cells.at(0, a), self._layout.file_offset(0, a) - len(leads.of(a))
        start = offset
        for k, (i, n) in enumerate(zip(begins.tolist(), lengths[:, 0].tolist(), strict=True)):
            head, body = leads.of(a + k), data[i : i + n]
            views += (head, body)
            pieces += _pieces(0, at, offset, body, head)
            at, offset = at + n, offset + len(head) + n
        write_at(self._fd, start, b"".join(views))
        return pieces

    def _large(self, desk: Desk, row: int) -> list[Piece]:
        """One range too large to be held: copied a window at a time."""
        r, cells = self._plan.ranges, self._layout.cells
        source, leads = int(r.offset[row]), self._layout.leads
        header = desk.room(cells.header)
        self._reader.fill(desk, [row], source, header)
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
            for moved in range(0, size, reading.WINDOW):
                part = desk.room(min(reading.WINDOW, size - moved))
                self._reader.fill(desk, [row], begin + moved, part)
                crc = zlib.crc32(part, crc)
                head = _NOTHING if moved or leads is None else leads.of(row)
                if len(head):
                    write_at(self._fd, offset - len(head), head)
                pieces += self._write(stream, at + moved, offset + moved, part, head)
        if crc != int(r.crc[row]):
            raise self._reader.bad_checksum(row)
        return pieces

    def _write(
        self, stream: int, at: int, offset: int, data: memoryview, head: memoryview = _NOTHING
    ) -> list[Piece]:
        """Write a stretch of a stream; ``head`` is already in front of it."""
        write_at(self._fd, offset, data)
        return _pieces(stream, at, offset - len(head), data, head)


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
