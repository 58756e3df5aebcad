"""Stage-out: move a task's merged file and what is beside it to where the user wants it. Calls block and are made in threads.

Nothing at the destination is ever overwritten. Every file appears there whole and tested, the manifest last; only when
all are there does the output folder in the spool give way to a marker, and only then are its files removed. Of a task
that writes several files, each is moved by itself with what belongs to it, and its manifest in the spool is the first to be
removed. So a move that is interrupted, wherever, is begun again and gives the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from hpcpanda.domain.errors import Conflict, InvalidValue
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.merge.files import sync_folder
from hpcpanda_edge.staging.copying import (
    NoRoom,
    Stopped,
    copy_file,
    identity,
    new_digest,
    read_digest,
    require_checksum,
)
from hpcpanda_edge.staging.places import Destination

_NO_LINKS: Final = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """An output to be moved."""

    output: OutputFile
    """As it is in the spool."""
    folder: Path
    """Output folder of the task in the spool."""
    marker: Path
    """Takes its place afterwards."""
    destination: Destination
    tag: str
    """Tells the unfinished files of this task at this site from others at the same destination."""
    one_of_several: bool = False
    """The task writes further files into the folder."""


def tag_of(site: str, task_id: int) -> str:
    """Short name of a task at a site."""
    return sha256(f"{site}/{task_id}".encode()).hexdigest()[:12]


def check_destination(destination: Destination, spool: Path) -> None:
    """See at the start of a task that its output can be left there at its end.

    Raises:
        InvalidValue: it cannot; says why.
    """
    base = destination.base
    problem: str | None = None
    try:
        if not base.is_dir():
            problem = "there is no such folder at this site; make it first"
        elif not os.access(base, os.W_OK | os.X_OK):
            problem = "the edge may not write into this folder"
        elif destination.folder.resolve().is_relative_to(spool.resolve()):
            problem = "this folder is inside the spool; name another one"
    except OSError as error:
        problem = f"cannot be looked at: {error.strerror}"
    if problem is not None:
        raise InvalidValue(f"staging.destination: {base}", problem)


def require_free(destination: Destination, file: str) -> None:
    """See at the start of a task that its output does not meet another file.

    Raises:
        InvalidValue: the file is there already.
    """
    path = destination.folder / file
    if os.path.lexists(path):
        raise InvalidValue(
            f"staging.destination: {path}",
            "exists already and is never overwritten; move it away, or name another folder",
        )


def move(order: Move, stopped: Stopped) -> OutputFile:
    """Move an output; gives the report about where it is now.

    Raises:
        Conflict: another file is in its way at the destination.
        InvalidValue: what lies in the output folder cannot be moved.
        NoRoom: the destination is full.
        CorruptData: what was written cannot be read again as it was.
        GivenUp: it was stopped.
        OSError: anything else.
    """
    if order.one_of_several:
        _move_one(order, stopped)
        return order.destination.moved(order.output)
    if not order.marker.exists():
        _place_all(order, _in_order(order), stopped)
        order.folder.rename(order.marker)
        sync_folder(order.marker.parent)
    for left in order.marker.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()
    return order.destination.moved(order.output)


def _move_one(order: Move, stopped: Stopped) -> None:
    """Move one of several files: without its manifest in the spool, it has been moved."""
    first, manifest = Path(order.output.path), Path(order.output.manifest)
    moved = Path(order.destination.moved(order.output).manifest)
    if manifest.exists() or not moved.is_file():
        _place_all(order, _in_order(order), stopped)
        manifest.unlink()
        sync_folder(order.folder)
    for left in _of_file(order.folder, first):
        left.unlink()


def _place_all(order: Move, files: list[Path], stopped: Stopped) -> None:
    """Have files of the spool at the destination, on the disk."""
    _make_folder(order.destination)
    for path in files:
        _place(path, order.destination.folder, order.tag, stopped)
    sync_folder(order.destination.folder)


def _of_file(folder: Path, file: Path) -> list[Path]:
    """A merged file, and what has its name as the beginning of its own."""
    return [
        Path(e.path) for e in os.scandir(folder) if e.name == file.name or e.name.startswith(f"{file.name}.")
    ]


def _in_order(order: Move) -> list[Path]:
    """What is to be moved: first the merged file, last its manifest, in between what else lies beside them."""
    first, last = Path(order.output.path), Path(order.output.manifest)
    if not first.parent == last.parent == order.folder:
        raise InvalidValue(str(first), f"is not in the task's output folder {order.folder}")
    if order.one_of_several:
        found = _of_file(order.folder, first)
    else:
        found = [Path(e.path) for e in os.scandir(order.folder) if not e.name.startswith(".")]
    for path in (*found, first, last):
        identity(path)
    return [first, *sorted(p for p in found if p not in (first, last)), last]


def _make_folder(destination: Destination) -> None:
    """Make the folders of a destination that are named for site and task."""
    base, folder = destination.base, destination.folder
    if not base.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder; make it", str(base))
    for part in reversed([folder, *folder.parents]):
        if part != base and part.is_relative_to(base) and not part.is_dir():
            part.mkdir(exist_ok=True)
            sync_folder(part.parent)


def _place(path: Path, folder: Path, tag: str, stopped: Stopped) -> None:
    """Have a file of the spool at the destination."""
    final = folder / path.name
    unfinished = folder / f".{tag}.{sha256(path.name.encode()).hexdigest()[:12]}.part"
    if os.path.lexists(final):
        _require_same(path, final, stopped)
        unfinished.unlink(missing_ok=True)
        return
    try:
        os.link(path, final, follow_symlinks=False)  # on one file system nothing has to be copied
    except FileExistsError:
        _require_same(path, final, stopped)
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        _copy(path, unfinished, stopped)
        _publish(unfinished, final)


def _copy(path: Path, unfinished: Path, stopped: Stopped) -> None:
    size = path.stat().st_size
    unfinished.unlink(missing_ok=True)
    disk = os.statvfs(unfinished.parent)
    free = disk.f_bavail * disk.f_frsize
    if size > free:
        raise NoRoom(f"no room for {path.name} in {unfinished.parent}: it has {size} bytes, {free} are free")
    try:
        digest = new_digest("sha256")
        copy_file(path, unfinished, mode=None, stopped=stopped, digest=digest)
        require_checksum(unfinished, f"sha256:{digest.hexdigest()}", path, stopped)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def _publish(unfinished: Path, final: Path) -> None:
    """Give a file its name, unless another has it."""
    try:
        os.link(unfinished, final, follow_symlinks=False)
    except FileExistsError:
        unfinished.unlink()
        raise _in_the_way(final) from None
    except OSError as problem:
        if problem.errno not in _NO_LINKS:
            raise
        if os.path.lexists(final):
            unfinished.unlink()
            raise _in_the_way(final) from problem
        unfinished.rename(final)
    else:
        unfinished.unlink()


def _require_same(path: Path, final: Path, stopped: Stopped) -> None:
    """Accept what an interrupted move has left: the very same bytes."""
    try:
        found = identity(final)
    except InvalidValue:
        raise _in_the_way(final) from None
    if final.is_symlink() or found.size != path.stat().st_size:
        raise _in_the_way(final)
    same = final.samefile(path) or (
        read_digest(final, "sha256", stopped) == read_digest(path, "sha256", stopped)
    )
    if not same:
        raise _in_the_way(final)


def _in_the_way(final: Path) -> Conflict:
    return Conflict(
        f"{final} exists already and is another file; it is not overwritten: move it away, and submit the task again "
        "with another staging.destination if it must stay"
    )
