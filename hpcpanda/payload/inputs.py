"""Input files: how many entries they have, and where a range of them is best cut."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from hpcpanda.domain.errors import InvalidValue, PayloadFailed
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.payload.listing import FileTable

MAX_CUTS = 10_000
"""Most clusters kept of one file; of more, every n-th is kept."""


def describe(path: str, format: InputFormat, container: str | None = None) -> InputFile:  # noqa: A002
    """Count a file's entries and find the entry numbers at which reading may start cheaply.

    ROOT: the cluster ends all branches share. HDF5: the dataset's chunks. LHE can only be read from
    its beginning, so it has no such numbers. Any other file is one entry; it is not opened, and its size is told.

    Args:
        path: the file; a relative path is taken from the current folder.
        format: what kind of file it is.
        container: name of the tree (ROOT) or dataset (HDF5).

    Raises:
        InvalidValue: the file cannot be read as this format, or has no entries; names the file.
    """
    absolute = os.path.abspath(path)  # noqa: PTH100 - symbolic links are kept, as users wrote them
    if format.in_containers and not container:
        raise InvalidValue(
            "inputs.container",
            f"{absolute}: {format} files need the name of a tree or dataset; if whole files are meant, say format 'file'",
        )
    if not Path(absolute).is_file():
        raise InvalidValue("inputs.files", f"{absolute}: no such file")
    if format is InputFormat.FILE:
        return InputFile(path=absolute, events=1, size=Path(absolute).stat().st_size or None)
    cuts: Iterable[int] = ()
    try:
        if format is InputFormat.ROOT:
            events, cuts = _root(absolute, str(container))
        elif format is InputFormat.HDF5:
            events, cuts = _hdf5(absolute, str(container))
        else:
            events = _lhe(absolute)
    except Exception as error:
        problem = str(error) if isinstance(error, _Unusable) else f"{type(error).__name__}: {error}"
        problem = " ".join(problem.split())
        raise InvalidValue(
            "inputs.files", f"{absolute}: cannot be read as {format}: {problem[:500]}"
        ) from error
    if events == 0:
        raise InvalidValue("inputs.files", f"{absolute}: has no entries")
    return InputFile(path=absolute, events=events, clusters=_thinned(cuts, events))


class _Unusable(Exception):
    """The file is of the format, but not usable; the message says why."""


def _thinned(cuts: Iterable[int], events: int) -> tuple[int, ...]:
    inside = [c for c in cuts if 0 < c < events]
    step = math.ceil(len(inside) / MAX_CUTS) or 1
    return tuple(inside[step - 1 :: step])


def _root(path: str, container: str) -> tuple[int, list[int]]:
    import uproot

    with uproot.open(path) as file:
        if container not in file:
            raise _Unusable(f"it has no {container!r}; it has {', '.join(file.keys()[:20]) or 'nothing'}")
        tree = file[container]
        if hasattr(tree, "common_entry_offsets"):
            return int(tree.num_entries), [int(c) for c in tree.common_entry_offsets()]
        if hasattr(tree, "cluster_summaries"):
            return int(tree.num_entries), [int(c.num_first_entry) for c in tree.cluster_summaries]
        raise _Unusable(f"{container!r} is a {type(tree).__name__}, not a tree")


def _hdf5(path: str, container: str) -> tuple[int, Iterable[int]]:
    import h5py

    with h5py.File(path, "r") as file:
        if container not in file:
            raise _Unusable(f"it has no {container!r}; it has {', '.join(list(file)[:20]) or 'nothing'}")
        dataset: Any = file[container]
        if not isinstance(dataset, h5py.Dataset) or not dataset.shape:
            raise _Unusable(f"{container!r} is not a dataset with an axis of entries")
        events = int(dataset.shape[0])
        return events, range(0, events, dataset.chunks[0]) if dataset.chunks else ()


def _lhe(path: str) -> int:
    with open(path, "rb") as plain:  # noqa: PTH123
        zipped = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        try:
            if zipped:
                with gzip.open(plain) as unzipped:
                    return _count_lhe(unzipped)
            return _count_lhe(plain)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _Unusable(f"its compression is broken or it is cut short ({error})") from error


def _count_lhe(file: IO[bytes] | gzip.GzipFile) -> int:
    """Events after the ``<init>`` block; a header may quote the tags."""
    in_events, opened, closed = False, 0, 0
    for line in file:
        if b"<" not in line:
            continue
        text = line.strip()
        if not in_events:
            in_events = text.startswith(b"</init>")
        elif text.startswith(b"<event") and text[6:7] in b"> \t":
            opened += 1
        elif text.startswith(b"</event>"):
            closed += 1
    if not in_events:
        raise _Unusable("it has no <init> block")
    if opened != closed:
        raise _Unusable(f"{opened} events begin, {closed} end: it is cut short")
    return opened


class CutPoints:
    """Event numbers at which ranges should be cut, and the file boundaries at which they must be."""

    def __init__(self, inputs: Inputs | None) -> None:
        self._table = FileTable(inputs) if inputs is not None else None

    def align(self, first: int, limit: int) -> int:
        """The best end for a range that starts at ``first`` and has at most ``limit`` events.

        The last cut within reach; where there is none, as far as the limit and the file go. Always
        ``first < align(first, limit) <= first + limit``, for ``first`` in the event space. An event of a dataset whose
        file is not listed is cut by itself: whoever runs it says what is wrong.

        Raises:
            ValueError: no file has the event.
        """
        table = self._table
        if table is None:
            return first + limit
        try:
            place = table.find(first)
        except PayloadFailed:
            return first + 1
        start = table.starts[place]
        end = min(first + limit, table.ends[place])
        clusters = table.files[place].clusters
        if end == start + table.files[place].events:
            return end
        cut = start + clusters[index] if (index := bisect_right(clusters, end - start) - 1) >= 0 else 0
        return cut if cut > first else end


def cut_points(inputs: Inputs | None) -> CutPoints:
    """Where to cut the event space of these inputs; without inputs, anywhere."""
    return CutPoints(inputs)
