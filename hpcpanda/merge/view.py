"""The content of a merged HDF5 file before it is copied: virtual datasets over the segments.

Each column's runs of bytes in the segments are listed as the *external storage* of small datasets in
the group ``.segments``; a virtual dataset joins them. No data is copied.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpcpanda.domain.errors import MergeFailed
from hpcpanda.events.columns import Column
from hpcpanda.merge.files import temporary_beside
from hpcpanda.merge.layout import Layout
from hpcpanda.merge.plan import Plan

RUNS_A_LIST: Final = 1000
"""Longest list of external runs of one dataset."""
VIEW_RUNS: Final = 200_000
"""Most runs of a view."""


def view_path(output: Path) -> Path:
    """Where the view of an output is."""
    return output.with_name(f"{output.stem}.view.h5")


def write_view(plan: Plan, layout: Layout, output: Path) -> Path:
    """Write the view of what is going to be merged into ``output``; it reads from the segments.

    Raises:
        MergeFailed: its name is that of the output.
    """
    import h5py

    path = view_path(output)
    if path == output:
        raise MergeFailed(f"the output may not be named {output.name}: its view would be")
    temporary = temporary_beside(output, "view")
    with h5py.File(temporary, "w-", libver="latest") as file:
        lengths = layout.cells.lengths(0, len(plan.ranges))
        offsets = layout.cells.starts(lengths) + plan.ranges.offset[:, None]
        names = [os.fsencode(p.absolute()) for p in plan.segments]
        files = [names[k] for k in plan.ranges.segment.tolist()]
        for number, column in enumerate(plan.schema.columns):
            used = np.flatnonzero(lengths[:, number])
            runs = [
                (files[k], o, n)
                for k, o, n in zip(
                    used.tolist(), offsets[used, number].tolist(), lengths[used, number].tolist(), strict=True
                )
            ]
            dataset = _virtual(file, number, column, runs)
            if column.counts is not None:
                dataset.attrs["counts"] = column.counts
        file.attrs["hpcpanda_view"] = 1
        file.attrs["events"] = np.array(plan.events.bounds, dtype="<u8").reshape(-1, 2)
    temporary.replace(path)
    return path


def remove_view(output: Path) -> None:
    """Delete the view, if there is one; only what this module has written is deleted."""
    path = view_path(output)
    if path == output or not path.exists():
        return
    import h5py

    with suppress(OSError), h5py.File(path, "r") as file:
        if "hpcpanda_view" in file.attrs:
            path.unlink()


def _virtual(file: Any, number: int, column: Column, runs: list[tuple[bytes, int, int]]) -> Any:  # noqa: ANN401
    """One column: external datasets of bounded lists, joined."""
    import h5py

    kind = h5py.h5t.py_create(np.dtype(column.dtype), logical=True)
    link = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    link.set_create_intermediate_group(True)
    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    total = sum(n for _, _, n in runs) // column.row_bytes
    space = h5py.h5s.create_simple((total, *column.item_shape))
    at = 0
    for part in range(0, len(runs), RUNS_A_LIST):
        listed = runs[part : part + RUNS_A_LIST]
        external = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        for run in listed:
            external.set_external(*run)
        rows = sum(n for _, _, n in listed) // column.row_bytes
        shape = (rows, *column.item_shape)
        name = f".segments/{number:05d}/{part // RUNS_A_LIST:06d}".encode()
        source = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, name, kind, source, external, link)
        target = space.copy()
        target.select_hyperslab((at, *(0 for _ in column.item_shape)), shape)
        create.set_virtual(target, b".", b"/" + name, source)
        at += rows
    return h5py.Dataset(h5py.h5d.create(file.id, column.name.encode(), kind, space, create, link))
