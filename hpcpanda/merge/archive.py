"""A ZIP archive with one stored member a range, in event order, always with ZIP64 fields.

Headers have no dates, and with names of one length the same size, so they are made as arrays, not one by one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpcpanda.domain.errors import MergeFailed
from hpcpanda.merge.concat import byte_cells
from hpcpanda.merge.digest import Stream
from hpcpanda.merge.files import read_at, write_durable
from hpcpanda.merge.layout import Layout, Leads
from hpcpanda.merge.plan import Numbers, Plan

_DIGITS: Final = 12
_DATE: Final = 0x21  # 1980-01-01, the first date ZIP knows
_VERSION: Final = 45
_UNIX: Final = 3 << 8
_MODE: Final = 0o100644 << 16
_ALL_ONES: Final = 0xFFFFFFFF

_FACTS: Final[list[Any]] = [
    ("version", "<u2"),
    ("flags", "<u2"),
    ("method", "<u2"),
    ("time", "<u2"),
    ("date", "<u2"),
    ("crc", "<u4"),
    ("packed32", "<u4"),
    ("size32", "<u4"),
    ("name_length", "<u2"),
    ("extra_length", "<u2"),
]
_ZIP64: Final[list[Any]] = [("extra_id", "<u2"), ("extra_size", "<u2"), ("size", "<u8"), ("packed", "<u8")]


def member_names(first: Numbers, last: Numbers) -> Numbers:
    """``events-FIRST-LAST``, both inclusive, padded with zeros to equal length."""
    digits = max(_DIGITS, len(str(int(last[-1]) - 1)) if len(last) else 0)
    width = len("events-") + 2 * digits + 1
    names = np.zeros((len(first), width), dtype=np.uint8)
    names[:, : len("events-")] = np.frombuffer(b"events-", dtype=np.uint8)
    names[:, len("events-") + digits] = ord("-")
    for begin, values in ((len("events-"), first), (len("events-") + digits + 1, last - 1)):
        for k in range(digits):
            names[:, begin + digits - 1 - k] = ord("0") + values // 10**k % 10
    packed: Numbers = names.view(f"V{width}").reshape(-1)
    return packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """Members whose names have one length."""

    rows: Numbers
    """Which ranges they are."""
    names: Numbers
    flags: int = 0


def _fill(records: Numbers, plan: Plan, named: Named) -> None:
    names = named.names
    records["version"] = _VERSION
    records["flags"] = named.flags
    records["date"] = _DATE
    records["crc"] = plan.ranges.crc[named.rows]
    records["packed32"] = records["size32"] = _ALL_ONES
    records["name_length"] = names.itemsize
    records["name"] = names
    records["extra_id"] = 1
    records["size"] = records["packed"] = plan.ranges.length[named.rows]


def _local_headers(plan: Plan, named: Named) -> Numbers:
    """What stands in front of each member."""
    layout = [("signature", "S4"), *_FACTS, ("name", named.names.dtype), *_ZIP64]
    records = np.zeros(len(named.rows), dtype=np.dtype(layout))
    _fill(records, plan, named)
    records["signature"] = b"PK\x03\x04"
    records["extra_length"] = 20
    records["extra_size"] = 16
    return records


def _directory_entries(plan: Plan, named: Named, offsets: Numbers) -> Numbers:
    """What the list of members says of each."""
    layout = [
        ("signature", "S4"),
        ("made_by", "<u2"),
        *_FACTS,
        ("comment_length", "<u2"),
        ("disk", "<u2"),
        ("internal", "<u2"),
        ("external", "<u4"),
        ("offset32", "<u4"),
        ("name", named.names.dtype),
        *_ZIP64,
        ("offset", "<u8"),
    ]
    records = np.zeros(len(named.rows), dtype=np.dtype(layout))
    _fill(records, plan, named)
    records["signature"] = b"PK\x01\x02"
    records["made_by"] = _UNIX | _VERSION
    records["extra_length"] = 28
    records["extra_size"] = 24
    records["external"] = _MODE
    records["offset32"] = _ALL_ONES
    records["offset"] = offsets[named.rows]
    return records


def _end(members: int, size: int, begin: int) -> bytes:
    def packed(*fields: tuple[int, str]) -> bytes:
        return b"".join(np.array(value, dtype=kind).tobytes() for value, kind in fields)

    end64 = b"PK\x06\x06" + packed(
        (44, "<u8"),
        (_UNIX | _VERSION, "<u2"),
        (_VERSION, "<u2"),
        (0, "<u4"),
        (0, "<u4"),
        (members, "<u8"),
        (members, "<u8"),
        (size, "<u8"),
        (begin, "<u8"),
    )
    locator = b"PK\x06\x07" + packed((0, "<u4"), (begin + size, "<u8"), (1, "<u4"))
    short = min(members, 0xFFFF)
    end = b"PK\x05\x06" + packed(
        (0, "<u2"),
        (0, "<u2"),
        (short, "<u2"),
        (short, "<u2"),
        (min(size, _ALL_ONES), "<u4"),
        (min(begin, _ALL_ONES), "<u4"),
        (0, "<u2"),
    )
    return end64 + locator + end


def _in_order(rows: Sequence[Numbers], records: Sequence[Numbers]) -> Leads:
    """Records of several lengths, in the order of the ranges they belong to."""
    if len(records) == 1:
        return Leads.of_records(records[0])
    count = sum(len(r) for r in rows)
    lengths = np.zeros(count, dtype=np.int64)
    places = [memoryview(b"")] * count
    for own, made in zip(rows, records, strict=True):
        lengths[own] = made.itemsize
        data, size = memoryview(made.tobytes()), made.itemsize
        for number, row in enumerate(own.tolist()):
            places[row] = data[number * size : (number + 1) * size]
    before = np.concatenate(([0], np.cumsum(lengths)))
    return Leads(data=memoryview(b"".join(places)), before=before)


def lay_out_members(plan: Plan, members: Sequence[Named], temporary: Path) -> Layout:
    """The archive without members' data; headers are written with it, the directory after it."""
    cells = byte_cells(plan)
    rows = [named.rows for named in members]
    leads = _in_order(rows, [_local_headers(plan, named) for named in members])
    offsets = cells.before[0][:-1] + leads.before[:-1]
    begin = cells.size(0) + len(leads.data)
    directory = _in_order(rows, [_directory_entries(plan, named, offsets) for named in members]).data
    tail = bytes(directory) + _end(len(plan.ranges), len(directory), begin)
    write_durable(temporary, b"")
    return Layout(streams=(Stream(None, cells.size(0)),), cells=cells, bases=(0,), leads=leads, tail=tail)


class ZipMerger:
    """One member a range."""

    def lay_out(self, plan: Plan, temporary: Path) -> Layout:
        """Members named by their events."""
        names = member_names(plan.ranges.first, plan.ranges.last)
        return lay_out_members(plan, [Named(rows=np.arange(len(names)), names=names)], temporary)

    def preview(self, plan: Plan, layout: Layout, output: Path) -> str | None:  # noqa: ARG002
        """Nothing to show before the copy."""
        return None

    def inspect(self, plan: Plan, layout: Layout, temporary: Path) -> None:  # noqa: ARG002
        """The directory is at the end of the file, as it was meant."""
        fd = os.open(temporary, os.O_RDONLY)
        try:
            found = memoryview(bytearray(max(0, os.fstat(fd).st_size - layout.tail_offset)))
            read_at(fd, layout.tail_offset, found)
        finally:
            os.close(fd)
        if found != layout.tail:
            raise MergeFailed("the archive's directory reads back wrong; nothing was replaced")
