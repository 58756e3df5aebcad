"""What a job has left: its outputs, the end of what it printed, and its work folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

STREAMS: Final = ("stdout.txt", "stderr.txt")
"""What a job prints, in its work folder."""
TAIL_BYTES: Final = 2000
"""So much of the end of what a job prints is in its report."""


def outputs_problem(folder: Path, outputs: Iterable[str]) -> str | None:
    """What is wrong with the outputs in a work folder whose path has no links in it; None when they are all there."""
    for name in outputs:
        path = folder / name
        try:
            found = path.lstat()
            inside = os.path.realpath(path) == os.fspath(path)
        except OSError as error:
            return f"payload.outputs: it did not leave {name!r}: {error.strerror}"
        if not stat.S_ISREG(found.st_mode) or not inside:
            return f"payload.outputs: {name!r} is not a regular file in the work folder"
        if not os.access(path, os.R_OK):
            return f"payload.outputs: {name!r} cannot be read"
    return None


def files_bytes(folder: Path, outputs: Iterable[str], streams: Sequence[int]) -> int:
    """Bytes of the outputs and of what was printed."""
    return sum((folder / name).lstat().st_size for name in outputs) + sum(
        os.fstat(fd).st_size for fd in streams
    )


def tail(fd: int) -> str:
    """The end of a file as text that every store takes."""
    start = max(os.fstat(fd).st_size - TAIL_BYTES, 0)
    return os.pread(fd, TAIL_BYTES, start).decode(errors="replace").replace("\0", "\ufffd")


def remove_folder(folder: Path) -> None:
    """Remove a work folder as far as it goes, with what a job has made read-only, too."""
    with contextlib.suppress(
        OSError
    ):  # most small jobs leave no more, and a general removal takes three times as long
        for name in STREAMS:
            (folder / name).unlink()
        folder.rmdir()
        return
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        return
    todo = [os.fspath(folder)]
    while todo:
        place = todo.pop()
        with contextlib.suppress(OSError):
            Path(place).chmod(0o700)
            with os.scandir(place) as entries:
                todo += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    shutil.rmtree(folder, ignore_errors=True)
