"""The digest of merged content: what is in the output, whatever the ranges, nodes and file were.

Content is one or more *streams* of bytes: the columns sorted by name, or the one stream of plain
bytes. A stream is hashed in blocks of :data:`BLOCK` bytes, so that several threads can do it; the
digest is the hash of each stream's description and block hashes.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hpcpanda.domain.errors import CorruptData, InvalidValue
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.columns import Buffer, Column, Items, encode

BLOCK: Final = 1 << 22
"""Bytes hashed as one block."""
ALGORITHM: Final = "sha256-blocks"
_MEMBERS: Final = Column(name="members", dtype="|u1")


@dataclass(frozen=True, slots=True)
class Stream:
    """One sequence of bytes of the content: a column, or plain bytes."""

    column: Column | None
    size: int

    def description(self) -> bytes:
        """What the digest says of the stream before its bytes."""
        c = self.column
        facts = [c.name, c.dtype, list(c.item_shape), c.counts] if c else []
        return json.dumps([*facts, self.size], ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def block_hash(parts: Iterable[Buffer]) -> bytes:
    """Hash of one block, given in parts."""
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return state.digest()


def combine(streams: Iterable[tuple[Stream, Iterable[bytes]]]) -> str:
    """The digest, from each stream and its blocks' hashes."""
    state = hashlib.sha256()
    for stream, hashes in streams:
        state.update(stream.description())
        for one in hashes:
            state.update(one)
    return f"{ALGORITHM}:{state.hexdigest()}"


class _Blocks:
    """Cuts a stream, which comes in pieces of any size, into blocks and hashes them."""

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self.hashes: list[bytes] = []
        self.size = 0
        state, room = hashlib.sha256(), BLOCK
        for piece in pieces:
            view = memoryview(piece).cast("B")
            self.size += len(view)
            while len(view):
                part, view = view[:room], view[room:]
                state.update(part)
                room -= len(part)
                if not room:
                    self.hashes.append(state.digest())
                    state, room = hashlib.sha256(), BLOCK
        if room < BLOCK:
            self.hashes.append(state.digest())


def digest_bytes(pieces: Iterable[Buffer] | Buffer) -> str:
    """Digest of plain bytes: of a serial run's output, whole or in pieces."""
    blocks = _Blocks([pieces] if isinstance(pieces, bytes | memoryview) else pieces)
    return combine([(Stream(None, blocks.size), blocks.hashes)])


def digest_members(members: Sequence[tuple[str, Buffer]]) -> str:
    """Digest of the named members of an archive of jobs: of what a serial run of the jobs leaves."""
    blocks = _Blocks(data for _, data in members)
    listed = list_members((name, len(data)) for name, data in members)
    return combine([*listed, (Stream(None, blocks.size), blocks.hashes)])


def list_members(members: Iterable[tuple[str, int]]) -> list[tuple[Stream, Sequence[bytes]]]:
    """The stream that tells names and sizes of an archive's members, a line of JSON each; none without members."""
    blocks = _Blocks(
        json.dumps(member, ensure_ascii=True, separators=(",", ":")).encode() + b"\n" for member in members
    )
    return [(Stream(_MEMBERS, blocks.size), blocks.hashes)] if blocks.size else []


def digest_columns(columns: Mapping[str, object]) -> str:
    """Digest of columns for all events: of what the payload returns for the whole event space.

    Raises:
        InvalidValue: the columns do not fit together.
    """
    lengths = [len(np.asarray(v)) for v in columns.values() if not isinstance(v, Items)]
    if not lengths:
        raise InvalidValue("result", "there is no column with one row an event")
    schema, (_, *buffers) = encode(columns, lengths[0])
    streams = []
    for column, buffer in zip(schema.columns, buffers, strict=True):
        blocks = _Blocks([buffer])
        streams.append((Stream(column, blocks.size), blocks.hashes))
    return combine(streams)


def digest_file(path: Path, format: OutputFormat) -> str:  # noqa: A002 - the word of the task's output
    """Digest of what is in a merged file.

    Raises:
        CorruptData: the file is not of that format.
    """
    match format:
        case OutputFormat.HDF5:
            return _digest_hdf5(path, None)
        case OutputFormat.CONCAT:
            return digest_bytes(_file_pieces(path))
        case OutputFormat.ZIP:
            return _digest_archive(path)


def digest_sample(path: Path, events: int) -> str:
    """Digest of the first ``events`` events of a merged HDF5 file, equal to that of a serial run over them."""
    return _digest_hdf5(path, events)


def _file_pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(BLOCK):
            yield piece


def _digest_archive(path: Path) -> str:
    """Members in folders are those of jobs: their names and sizes count. Else the bytes alone do."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [(m.filename, m.file_size) for m in archive.infolist()]
            listed = list_members(members) if any("/" in name for name, _ in members) else []
            blocks = _Blocks(_member_pieces(archive))
    except (zipfile.BadZipFile, NotImplementedError) as problem:
        raise CorruptData(f"{path}: {problem}") from problem
    return combine([*listed, (Stream(None, blocks.size), blocks.hashes)])


def _member_pieces(archive: zipfile.ZipFile) -> Iterator[bytes]:
    for member in archive.infolist():
        with archive.open(member) as file:
            while piece := file.read(BLOCK):
                yield piece


def hdf5_columns(file: Any) -> dict[str, Any]:  # noqa: ANN401 - h5py has no types
    """All datasets of an open HDF5 file that are columns, sorted by name."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:  # noqa: ANN401
        if hasattr(item, "shape") and not name.startswith(".segments/"):
            found[name] = item

    file.visititems(visit)
    return dict(sorted(found.items()))


def hdf5_column(name: str, dataset: Any) -> Column:  # noqa: ANN401
    """The column that a dataset of a merged file holds."""
    counts = dataset.attrs.get("counts")
    return Column(name=name, dtype=dataset.dtype.str, item_shape=tuple(dataset.shape[1:]), counts=counts)


def _digest_hdf5(path: Path, events: int | None) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return combine(_hdf5_streams(hdf5_columns(file), events))
    except OSError as problem:
        raise CorruptData(f"{path}: {problem}") from problem


def _hdf5_streams(
    datasets: Mapping[str, Any], events: int | None
) -> Iterator[tuple[Stream, Sequence[bytes]]]:
    for name, dataset in datasets.items():
        column = hdf5_column(name, dataset)
        rows = dataset.shape[0]
        if events is not None:
            rows = events if column.counts is None else int(datasets[column.counts][:events].sum())
            if rows > dataset.shape[0]:
                raise InvalidValue("events", f"{events} asked for, the file has fewer")
        blocks = _Blocks(_row_pieces(dataset.__getitem__, rows, max(1, BLOCK // column.row_bytes)))
        yield Stream(column, blocks.size), blocks.hashes


def _row_pieces(read: Callable[[slice], Any], rows: int, step: int) -> Iterator[bytes]:
    for first in range(0, rows, step):
        yield read(slice(first, min(rows, first + step))).tobytes()
