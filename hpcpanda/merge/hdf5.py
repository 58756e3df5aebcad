"""HDF5: one contiguous dataset a column, rows in event order.

The library writes the file's structure and says where each dataset's bytes go; the bytes are then
written past it, by several threads, with plain writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpcpanda.domain.errors import CorruptData, MergeFailed
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.events.columns import BYTES, Column
from hpcpanda.merge.digest import Stream, hdf5_column, hdf5_columns
from hpcpanda.merge.files import OpenFiles, read_at
from hpcpanda.merge.layout import Cells, Layout
from hpcpanda.merge.plan import Numbers, Plan
from hpcpanda.merge.view import VIEW_RUNS, view_path, write_view

FORMAT: Final = 1
VIEW_FROM: Final = 1 << 28
"""Bytes from which on the copy takes long enough for a view to be worth while."""


def column_cells(plan: Plan) -> Cells:
    """How ranges are cut into columns.

    Raises:
        MergeFailed: the payload returned bytes.
        CorruptData: lengths of ranges do not fit the columns.
    """
    columns = plan.schema.columns
    if plan.schema == BYTES and len(plan.ranges):
        raise MergeFailed("the payload returned bytes; hdf5 output needs arrays, or choose concat or zip")
    header = 8 * len(columns)
    events = plan.ranges.last - plan.ranges.first
    fixed = header + events * sum(c.row_bytes for c in columns if c.counts is None)
    jagged = sorted({c.counts for c in columns if c.counts is not None})
    rows = _jagged_rows(plan, jagged, plan.ranges.length - fixed)
    cells = Cells.of(
        header,
        [c.row_bytes for c in columns],
        [events if c.counts is None else rows[c.counts] for c in columns],
    )
    if columns and len(plan.ranges):
        lengths = cells.lengths(0, len(plan.ranges)).sum(axis=1) + header
        wrong = np.flatnonzero(lengths != plan.ranges.length)
        if len(wrong):
            raise CorruptData(
                f"length does not fit the columns: {plan.place(int(wrong[0]))}; nothing was merged"
            )
    return cells


def _jagged_rows(plan: Plan, counters: list[str], spare: Numbers) -> dict[str, Numbers]:
    """Rows of each range in the columns of each counter; ``spare`` are the bytes they share."""
    columns = plan.schema.columns
    if len(counters) == 1:
        width = sum(c.row_bytes for c in columns if c.counts is not None)
        return {counters[0]: np.maximum(spare, 0) // width}
    if not counters:
        return {}
    found = _read_headers(plan, len(columns))
    first = {name: next(k for k, c in enumerate(columns) if c.counts == name) for name in counters}
    return {name: np.ascontiguousarray(found[:, k]) for name, k in first.items()}


def _read_headers(plan: Plan, columns: int) -> Numbers:
    """The row counts at the begin of each range; their checksums are tested when they are copied."""
    data = memoryview(bytearray(8 * columns * len(plan.ranges)))
    files = OpenFiles(plan.segments)
    size = 8 * columns
    order = np.lexsort((plan.ranges.offset, plan.ranges.segment))
    try:
        for row in order.tolist():
            at, segment = int(plan.ranges.offset[row]), int(plan.ranges.segment[row])
            read_at(files.fd(segment), at, data[row * size : (row + 1) * size])
    except CorruptData as problem:
        raise CorruptData(f"{problem} ({plan.place(row)}); nothing was merged") from problem
    finally:
        files.close()
    return np.frombuffer(data, dtype="<u8").reshape(-1, columns).astype(np.int64)


class Hdf5Merger:
    """Arrays of all events."""

    def __init__(self, *, view_from: int = VIEW_FROM) -> None:
        self._view_from = view_from

    def lay_out(self, plan: Plan, temporary: Path) -> Layout:
        """The file's structure, with room for the data."""
        import h5py

        _check_names(plan.schema.columns)
        cells = column_cells(plan)
        bases: list[int] = []
        with h5py.File(temporary, "w-", libver="latest") as file:
            for number, column in enumerate(plan.schema.columns):
                rows = int(cells.before[number][-1])
                dataset = _contiguous(file, column, rows)
                if column.counts is not None:
                    dataset.attrs["counts"] = column.counts
                bases.append(dataset.id.get_offset() or 0)
            mark_events(file, plan.events, plan.failed)
        streams = tuple(Stream(c, cells.size(n)) for n, c in enumerate(plan.schema.columns))
        return Layout(streams=streams, cells=cells, bases=tuple(bases))

    def preview(self, plan: Plan, layout: Layout, output: Path) -> str | None:
        """A file of virtual datasets over the segments, when the copy will take a while."""
        if plan.size < self._view_from:
            return f"no view was written: fewer than {self._view_from} bytes to copy"
        if len(plan.ranges) * len(layout.streams) > VIEW_RUNS:
            return f"no view was written: more than {VIEW_RUNS} pieces"
        write_view(plan, layout, output)
        return f"the view {view_path(output).name} stood in for the output while it was copied"

    def inspect(self, plan: Plan, layout: Layout, temporary: Path) -> None:
        """Names, types, shapes and places are those meant."""
        with reopened(temporary) as file:
            found = hdf5_columns(file)
            meant = {
                s.column.name: (s, base)
                for s, base in zip(layout.streams, layout.bases, strict=True)
                if s.column
            }
            if found.keys() != meant.keys():
                raise MergeFailed("the output's columns read back wrong; nothing was replaced")
            for name, (stream, base) in meant.items():
                dataset = found[name]
                same = (
                    hdf5_column(name, dataset) == stream.column
                    and dataset.nbytes == stream.size
                    and (dataset.id.get_offset() or 0) == base
                )
                if not same:
                    raise MergeFailed(f"column {name!r} of the output reads back wrong; nothing was replaced")
            if tuple(file.attrs["events"].ravel().tolist()) != plan.events.bounds:
                raise MergeFailed("the output's list of events reads back wrong; nothing was replaced")


@contextmanager
def reopened(path: Path) -> Iterator[Any]:
    """The written file, opened for reading.

    Raises:
        MergeFailed: HDF5 cannot read it.
    """
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as problem:
        raise MergeFailed(f"the output cannot be opened again: {problem}; nothing was replaced") from problem
    with file:
        yield file


def mark_events(file: Any, events: IntervalSet, failed: IntervalSet) -> None:  # noqa: ANN401 - h5py has no types
    """Say in the file which events its rows are, and which are missing because they failed."""
    file.attrs["hpcpanda_format"] = FORMAT
    for name, intervals in (("events", events), ("failed", failed)):
        file.attrs[name] = np.array(intervals.bounds, dtype="<u8").reshape(-1, 2)


def _contiguous(file: Any, column: Column, rows: int) -> Any:  # noqa: ANN401
    """A dataset whose room in the file is known at once and never filled by the library."""
    import h5py

    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_layout(h5py.h5d.CONTIGUOUS)
    create.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    create.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    create.set_obj_track_times(False)
    link = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    link.set_create_intermediate_group(True)
    link.set_char_encoding(h5py.h5t.CSET_UTF8)
    kind = h5py.h5t.py_create(np.dtype(column.dtype), logical=True)
    space = h5py.h5s.create_simple((rows, *column.item_shape))
    return h5py.Dataset(h5py.h5d.create(file.id, column.name.encode(), kind, space, create, link))


def _check_names(columns: tuple[Column, ...]) -> None:
    names = {c.name for c in columns}
    for name in sorted(names):
        parts = name.split("/")
        if any(p in ("", ".", "..", ".segments") for p in parts) or "\0" in name:
            raise MergeFailed(f"column name {name!r} cannot be the name of an HDF5 dataset; rename it")
        for k in range(1, len(parts)):
            if "/".join(parts[:k]) in names:
                raise MergeFailed(
                    f"columns {'/'.join(parts[:k])!r} and {name!r} cannot both be in one HDF5 file"
                )
