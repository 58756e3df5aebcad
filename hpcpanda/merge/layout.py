"""Where every byte of every range goes in the output file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcpanda.merge.digest import Stream
from hpcpanda.merge.plan import Numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """How ranges are cut into streams: after ``header`` bytes, a range holds one cell for each
    stream, ``rows * row_bytes`` long."""

    header: int
    row_bytes: tuple[int, ...]
    """Of each stream."""
    rows: tuple[Numbers, ...]
    """For each stream, the rows of each range."""
    before: tuple[Numbers, ...]
    """For each stream, the rows of all earlier ranges; one longer than ``rows``."""

    @classmethod
    def of(cls, header: int, row_bytes: Sequence[int], rows: Sequence[Numbers]) -> Cells:
        """Sum up the rows; streams that share an array of rows share the sums."""
        sums: dict[int, Numbers] = {}
        for counts in rows:
            if id(counts) not in sums:
                sums[id(counts)] = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        return cls(
            header=header,
            row_bytes=tuple(row_bytes),
            rows=tuple(rows),
            before=tuple(sums[id(counts)] for counts in rows),
        )

    def lengths(self, a: int, b: int) -> Numbers:
        """Bytes of each cell of the ranges ``a`` to ``b``: a row a range, a column a stream."""
        return np.stack([r[a:b] * w for r, w in zip(self.rows, self.row_bytes, strict=True)], axis=1)

    def counted(self, a: int, b: int) -> Numbers:
        """Rows of each cell of the ranges ``a`` to ``b``."""
        return np.stack([r[a:b] for r in self.rows], axis=1)

    def starts(self, lengths: Numbers) -> Numbers:
        """Where the cells begin inside their range."""
        begins: Numbers = np.cumsum(lengths, axis=1) - lengths + self.header
        return begins

    def at(self, stream: int, row: int) -> int:
        """Where in its stream the cell of a range begins."""
        return int(self.before[stream][row]) * self.row_bytes[stream]

    def size(self, stream: int) -> int:
        """Bytes of a whole stream."""
        return int(self.before[stream][-1]) * self.row_bytes[stream]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leads:
    """Bytes in front of each range."""

    data: memoryview
    """All of them, one after the other."""
    before: Numbers
    """Bytes of the leads of all earlier ranges; one longer than there are ranges."""

    @classmethod
    def of_records(cls, records: Numbers) -> Leads:
        """Leads of equal length, an array of them."""
        before = np.arange(len(records) + 1, dtype=np.int64) * records.itemsize
        return cls(data=memoryview(records.tobytes()), before=before)

    def of(self, row: int) -> memoryview:
        """The lead of one range."""
        return self.data[self.before[row] : self.before[row + 1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The output file: streams, their places, what else is written."""

    streams: tuple[Stream, ...]
    cells: Cells
    bases: tuple[int, ...]
    """File offset of each stream's first byte (with leads: as if there were none)."""
    leads: Leads | None = None
    """With one stream: bytes in front of each range."""
    tail: bytes = b""
    """What follows the last range."""
    known: tuple[tuple[Stream, Sequence[bytes]], ...] = ()
    """Streams of the digest that are not copied, each with the hashes of its blocks; they come first."""

    def file_offset(self, stream: int, row: int) -> int:
        """Where in the file the cell of a range begins."""
        leads = 0 if self.leads is None else int(self.leads.before[row + 1])
        return self.bases[stream] + self.cells.at(stream, row) + leads

    @property
    def tail_offset(self) -> int:
        """Where the tail is written."""
        leads = 0 if self.leads is None else int(self.leads.before[-1])
        return self.bases[0] + self.streams[0].size + leads
