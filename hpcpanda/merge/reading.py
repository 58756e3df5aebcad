"""Read ranges from segments, many at once, each checked against the CRC-32 of its journal entry.

Ranges are handled in windows of a few megabytes in event order, several windows at a time by a small
pool of threads.
"""

from __future__ import annotations

import os
import queue
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import numpy as np

from hpcpanda.domain.errors import CorruptData
from hpcpanda.merge.files import OpenFiles, read_at
from hpcpanda.merge.plan import Numbers, Plan

WINDOW: Final = 1 << 22
"""Bytes of ranges handled in one step; a range of twice this size or more is handled bit by bit."""
STEP: Final = 1 << 18
"""Bytes read at once and then checked: they stay in the processor's cache."""
_LEAST: Final = 64
"""A range counts as so many bytes at least, so that a window has a bounded number of them."""

Done = Callable[[int], None]
"""Is told how far one is."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Desk:
    """What one thread works with: open segments and a buffer that grows to the largest window."""

    segments: OpenFiles
    buffer: memoryview

    def room(self, size: int) -> memoryview:
        """A part of the buffer."""
        if size > len(self.buffer):
            self.buffer = memoryview(bytearray(size))
        return self.buffer[:size]


@contextmanager
def open_desks(paths: Sequence[Path], count: int) -> Iterator[queue.SimpleQueue[Desk]]:
    """Desks for so many threads."""
    desks = [Desk(OpenFiles(paths), memoryview(b"")) for _ in range(count)]
    free: queue.SimpleQueue[Desk] = queue.SimpleQueue()
    for desk in desks:
        free.put(desk)
    try:
        yield free
    finally:
        for desk in desks:
            desk.segments.close()


class Reader:
    """Reads the ranges of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def each_window(
        self, step: Callable[[Desk, int, int], R], pool: ThreadPoolExecutor, threads: int
    ) -> Iterator[tuple[int, R]]:
        """What ``step`` makes of the ranges ``a`` to ``b`` of each window, in order, with ``b``."""

        def at_a_desk(window: tuple[int, int]) -> R:
            desk = free.get()
            try:
                return step(desk, *window)
            finally:
                free.put(desk)

        windows = list(_windows(self.plan.ranges.length))
        with open_desks(self.plan.segments, threads) as free:
            results = bounded_map(pool, at_a_desk, windows, 2 * threads)
            yield from ((b, result) for (_, b), result in zip(windows, results, strict=True))

    def read(self, desk: Desk, a: int, b: int) -> tuple[memoryview, Numbers]:
        """All bytes of the ranges, and where each of them begins there; checked."""
        r = self.plan.ranges
        segment, offset, length = r.segment[a:b], r.offset[a:b], r.length[a:b]
        order = np.lexsort((offset, segment))
        ends = np.cumsum(length[order])
        begins = np.empty(b - a, dtype=np.int64)
        begins[order] = ends - length[order]
        fresh = np.ones(b - a, dtype=bool)
        fresh[1:] = (
            (np.diff(segment[order]) != 0)
            | (offset[order][1:] != offset[order][:-1] + length[order][:-1])
            | (np.diff(ends // STEP) != 0)
        )
        heads = np.flatnonzero(fresh).tolist()
        data = desk.room(int(ends[-1]))
        rows, stops, crcs = (order + a).tolist(), ends.tolist(), r.crc[a:b][order].tolist()
        at = 0
        for head, tail in zip(heads, [*heads[1:], b - a], strict=True):
            begin = int(offset[rows[head] - a])
            self.fill(desk, rows[head:tail], begin, data[at : stops[tail - 1]])
            for k in range(head, tail):
                if zlib.crc32(data[at : stops[k]]) != crcs[k]:
                    raise self.bad_checksum(rows[k])
                at = stops[k]
        return data, begins

    def fill(self, desk: Desk, rows: Sequence[int], offset: int, into: memoryview) -> None:
        """Read from the segment in which these ranges follow each other."""
        ranges = self.plan.ranges
        fd = desk.segments.fd(int(ranges.segment[rows[0]]))
        try:
            read_at(fd, offset, into)
        except CorruptData as problem:
            size = os.fstat(fd).st_size
            short = next((r for r in rows if ranges.offset[r] + ranges.length[r] > size), rows[0])
            raise CorruptData(f"{problem} ({self.plan.place(short)}); nothing was merged") from problem

    def bad_checksum(self, row: int) -> CorruptData:
        """The error for a range whose bytes are not those of its journal."""
        return CorruptData(f"checksum wrong: {self.plan.place(row)}; nothing was merged")


def is_large(length: int) -> bool:
    """Whether a range is handled bit by bit; it is then alone in its window."""
    return length >= 2 * WINDOW


def _windows(length: Numbers) -> Iterator[tuple[int, int]]:
    """Cut ranges into windows; a large range is a window of its own."""
    if not len(length):
        return
    large = length >= 2 * WINDOW
    key = np.cumsum(np.where(large, WINDOW, np.maximum(length, _LEAST))) // WINDOW
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
