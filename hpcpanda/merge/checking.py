"""Read the output again and compare it to what was written."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hpcpanda.domain.errors import MergeFailed
from hpcpanda.merge import reading
from hpcpanda.merge.digest import BLOCK, block_hash, combine
from hpcpanda.merge.files import read_at
from hpcpanda.merge.layout import Layout
from hpcpanda.merge.plan import Numbers
from hpcpanda.merge.reading import Desk, Done, bounded_map, open_desks


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
    with open_desks([path], threads) as free:

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
    found_streams = ((stream, hashes[n]) for n, stream in enumerate(layout.streams))
    return combine([*layout.known, *found_streams])


def _check_cover(layout: Layout, pieces: Numbers) -> None:
    """The pieces follow each other without gap from the begin to the end of each stream."""
    for number, stream in enumerate(layout.streams):
        own = pieces[pieces["stream"] == number]
        ends = np.concatenate(([0], own["at"] + own["length"]))
        if ends[-1] != stream.size or (own["at"] != ends[:-1]).any():
            raise MergeFailed(f"stream {number} of the output was not written whole; nothing was replaced")


def _block(desk: Desk, group: Numbers) -> bytes:
    """Hash of the content of pieces that lie one after the other in the file."""
    offset, lead, length, crc = (group[name].tolist() for name in ("offset", "lead", "length", "crc"))
    stop = [o + a + n for o, a, n in zip(offset, lead, length, strict=True)]
    fd = desk.segments.fd(0)

    def content() -> Iterator[memoryview]:
        k = 0
        while k < len(offset):
            if stop[k] - offset[k] > reading.STEP:
                yield from _stepwise(fd, desk, offset[k], lead[k], stop[k], crc[k])
                k += 1
                continue
            end = bisect_right(stop, offset[k] + reading.STEP, lo=k + 1)
            data = desk.room(stop[end - 1] - offset[k])
            read_at(fd, offset[k], data)
            for n in range(k, end):
                part = data[offset[n] - offset[k] : stop[n] - offset[k]]
                if zlib.crc32(part) != crc[n]:
                    raise _reads_back_wrong(offset[n])
                yield part[lead[n] :]
            k = end

    return block_hash(content())


def _stepwise(fd: int, desk: Desk, offset: int, lead: int, stop: int, crc: int) -> Iterator[memoryview]:
    """A long piece in parts that stay in the processor's cache."""
    found = 0
    for at in range(offset, stop, reading.STEP):
        part = desk.room(min(reading.STEP, stop - at))
        read_at(fd, at, part)
        found = zlib.crc32(part, found)
        yield part if at > offset else part[lead:]
    if found != crc:
        raise _reads_back_wrong(offset)


def _reads_back_wrong(offset: int) -> MergeFailed:
    return MergeFailed(f"the output reads back wrong at byte {offset}; nothing was replaced")
