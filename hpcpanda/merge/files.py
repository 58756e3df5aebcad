"""Files that appear whole or not at all."""

from __future__ import annotations

import glob
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hpcpanda.domain.errors import CorruptData
from hpcpanda.events.columns import Buffer
from hpcpanda.events.recorder import write_all


def temporary_beside(output: Path, kind: str = "data") -> Path:
    """A new name in the output's folder for a file that is not finished."""
    return output.with_name(f".{output.name}.tmp-{secrets.token_hex(4)}.{kind}")


def remove_leftovers(output: Path) -> None:
    """Delete what earlier tries left unfinished."""
    for path in output.parent.glob(f".{glob.escape(output.name)}.tmp-*"):
        with suppress(FileNotFoundError):
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durable(path: Path, data: bytes) -> None:
    """Write a new file and bring it to the disk."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        write_all(fd, [data])
        os.fsync(fd)
    finally:
        os.close(fd)


def write_at(fd: int, offset: int, data: Buffer) -> None:
    """Write all of ``data`` at a file offset."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def read_at(fd: int, offset: int, into: memoryview) -> None:
    """Fill ``into`` from a file offset.

    Raises:
        CorruptData: the file ends before.
    """
    while len(into):
        got = os.preadv(fd, [into], offset)
        if not got:
            raise CorruptData(f"the file ends at byte {offset}, {len(into)} bytes short")
        into, offset = into[got:], offset + got


class OpenFiles:
    """Files open for reading, a bounded number at a time; for one thread."""

    def __init__(self, paths: Sequence[Path], limit: int = 64) -> None:
        self._paths = paths
        self._limit = limit
        self._fds: dict[int, int] = {}

    def fd(self, number: int) -> int:
        """Descriptor of the file with that number.

        Raises:
            CorruptData: the file is missing.
        """
        fd = self._fds.pop(number, None)
        if fd is None:
            if len(self._fds) >= self._limit:
                os.close(self._fds.pop(next(iter(self._fds))))
            try:
                fd = os.open(self._paths[number], os.O_RDONLY)
            except FileNotFoundError as problem:
                raise CorruptData(f"{self._paths[number]} is missing") from problem
        self._fds[number] = fd
        return fd

    def close(self) -> None:
        """Close all."""
        while self._fds:
            os.close(self._fds.popitem()[1])
