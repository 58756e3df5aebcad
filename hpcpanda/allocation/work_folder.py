"""A node's work folder: gone when the last process that could use it has ended, however it ended.

A batch system that kills everything at once kills the process that would remove the folder, too. The next one that makes a
folder there removes what was left so.
"""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "hpcpanda-"
_HELD: Final = ".held"
"""File in a work folder; locked as long as a process lives that may use the folder."""
_REMOVE: Final = 'trap "" TERM INT HUP; [ $# = 0 ] || rm -rf -- "$@"; read -r _; rm -rf -- "$0"'
"""Removes what others have left, then waits for the end of its stdin."""


def make_work_folder(allocation_id: str, scratch: str | None = None) -> Path:
    """A new folder in the node-local folder ``scratch``, or the system's temporary one; a small process removes it.

    The writing end of that process's stdin is never closed: this process holds it, and so do those forked from
    it later, but not the programs that they start.
    """
    parent = os.path.expandvars(scratch) if scratch is not None else tempfile.gettempdir()
    left = _left_behind(parent)
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{allocation_id}-", dir=parent))
    _hold(folder)
    watched, _held = os.pipe()
    try:
        subprocess.Popen(
            ["/bin/sh", "-c", _REMOVE, str(folder), *left],
            stdin=watched,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(watched)
    return folder


def _hold(folder: Path) -> None:
    """Lock it for this process and those forked from it later; the lock is there before its file has its name."""
    begun = folder / f"{_HELD}.begun"
    held = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    begun.rename(folder / _HELD)


def _left_behind(parent: str) -> list[str]:
    """Work folders of this user that no process holds any more."""
    with os.scandir(parent) as entries:
        found = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    return [path for path in found if _is_left(path)]


def _is_left(folder: str) -> bool:
    try:
        seen = os.lstat(folder)
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid():
            return False
        file = os.open(f"{folder}/{_HELD}", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(file)
