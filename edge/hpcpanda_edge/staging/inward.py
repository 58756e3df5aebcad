"""Stage-in: make, look for and remove the copies of a task's inputs. Calls block and are made in threads."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.intervals import EMPTY, EventRange, IntervalSet
from hpcpanda.merge.files import sync_folder
from hpcpanda_edge.staging.copying import (
    GivenUp,
    Identity,
    NoRoom,
    Stopped,
    copy_file,
    identity,
    require_checksum,
)
from hpcpanda_edge.staging.places import Source

Twins = dict[Path, dict[Path, Identity]]
"""By original: the copies that this process has made, and what the original was then."""

_PRIVATE: Final = 0o400
"""Of copies: they have another owner than the originals, whose readers they must not widen, and are not to be written."""


@dataclass(slots=True)
class Room:
    """Free space of the spool's file system, as it is when all copies under way have ended."""

    folder: Path
    reserve: int
    """Bytes that stay free."""
    _promised: dict[Path, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def take(self, original: Path, size: int, copy: Path) -> Iterator[None]:
        """Hold room for a copy while it is made.

        Raises:
            NoRoom: there is not so much.
        """
        with self._lock:
            disk = os.statvfs(self.folder)
            free = disk.f_bavail * disk.f_frsize - sum(self._promised.values())
            if size + self.reserve > free:
                raise NoRoom(
                    f"no room for {original} in {self.folder}: it has {_mb(size)}, {_mb(max(0, free))} are free, "
                    f"of which {_mb(self.reserve)} are kept in reserve"
                )
            self._promised[copy] = size
        try:
            yield
        finally:
            with self._lock:
                del self._promised[copy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A copy to be made."""

    original: Path
    copy: Path
    unfinished: Path
    """Name of the copy while it is made, on the same file system."""
    size: int | None = None
    checksum: str | None = None
    twins: tuple[tuple[Path, Identity], ...] = ()
    """Copies of the same original for other tasks, and what it was then."""


def fetch(order: Fetch, room: Room, stopped: Stopped) -> Identity:
    """Make a copy; gives what the original was.

    Raises:
        InvalidValue: the original is not a plain file.
        CorruptData: the original, or its copy, is not what the task says.
        NoRoom: there is no room for it.
        Unavailable: the original was changed meanwhile.
        GivenUp: it was stopped.
        OSError: anything else.
    """
    origin = identity(order.original)
    if order.size is not None and order.size != origin.size:
        raise CorruptData(f"{order.original} has {origin.size} bytes, not {order.size}")
    order.copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    order.unfinished.unlink(missing_ok=True)
    try:
        if not _linked(order, origin):
            with room.take(order.original, origin.size, order.copy):
                origin = copy_file(order.original, order.unfinished, mode=_PRIVATE, stopped=stopped)
        if order.size is not None and order.size != origin.size:
            raise CorruptData(f"{order.original} has {origin.size} bytes, not {order.size}")
        if order.checksum is not None:
            require_checksum(order.unfinished, order.checksum, order.original, stopped)
        if stopped():
            raise GivenUp
        order.unfinished.replace(order.copy)
        sync_folder(order.copy.parent)
    finally:
        with contextlib.suppress(OSError):
            order.unfinished.unlink()
    return origin


def _linked(order: Fetch, origin: Identity) -> bool:
    """Share the copy that was made for another task of the same, unchanged file."""
    for twin, known in order.twins:
        if known == origin:
            with contextlib.suppress(OSError):  # removed meanwhile, or too many links
                os.link(twin, order.unfinished)
                return True
    return False


def look(folder: Path, sources: Sequence[Source]) -> dict[int, IntervalSet]:
    """The copies that are in a task's input folder, by source; what an earlier edge left unfinished is removed.

    Raises:
        OSError: the folder cannot be read.
    """
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
            if entry.name.startswith(".part-"):
                Path(entry.path).unlink()
    return {s.number: _standing(folder, s) for s in sources}


def _standing(folder: Path, source: Source) -> IntervalSet:
    if not source.each:
        whole = IntervalSet.span(source.cover.first, source.cover.last)
        return whole if source.copy(folder, source.cover.first).is_file() else EMPTY
    try:
        names = [entry.name for entry in os.scandir(folder / str(source.number))]
    except FileNotFoundError:
        return EMPTY
    jobs = (int(name) for name in names if name.isascii() and name.isdigit())
    return IntervalSet.of(EventRange(j, j + 1) for j in jobs if source.copy(folder, j).is_file())


def remove(folder: Path, source: Source, events: IntervalSet, stopped: Stopped) -> None:
    """Remove the copies of these events, or jobs, until stopped.

    Raises:
        OSError: one cannot be removed.
    """
    if not source.each:
        source.copy(folder, source.cover.first).unlink(missing_ok=True)
        return
    for part in events.ranges():
        for job in range(part.first, part.last):
            if stopped():
                return
            copy = source.copy(folder, job)
            copy.unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                copy.parent.rmdir()


def forget_twins(twins: Twins, folder: Path) -> None:
    """Forget the copies in a task's input folder."""
    for original, copies in list(twins.items()):
        for copy in [c for c in copies if c.is_relative_to(folder)]:
            del copies[copy]
        if not copies:
            del twins[original]


def remove_all(*folders: Path) -> None:
    """Remove a task's folders, and what is above them when it is empty then.

    Raises:
        OSError: something cannot be removed.
    """
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # the task has other folders
            folder.parent.rmdir()


def _mb(size: int) -> str:
    return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.4g} GB"
