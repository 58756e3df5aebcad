"""A runner's work folders. One that a job has left as it found it is used again.

On a disk, making and removing a folder with two files takes ten times as long as renaming it, and far longer when
others write to the disk, too; a small job takes no longer than that itself.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from hpcpanda.allocation.job_outcome import STREAMS, remove_folder

_SMALL: Final = 1 << 16
_NAMES: Final = frozenset(STREAMS)


def job_folder(scratch: Path, run_id: int) -> Path:
    """Work folder of a run."""
    return scratch / f"job-{run_id}"


def remove_folders(scratch: Path) -> None:
    """Remove all work folders."""
    for folder in scratch.glob("job-*"):
        remove_folder(folder)


class WorkFolders:
    """Makes and removes them."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._spare = scratch / f"job-spare-{os.getpid()}"
        self._has_spare = False

    def make(self, run_id: int) -> Path:
        """A folder for a run: nothing is in it but, perhaps, what another job has printed, which is to be cut off.

        Raises:
            OSError: the node refuses.
        """
        folder = job_folder(self._scratch, run_id)
        if self._has_spare:
            self._has_spare = False
            self._spare.rename(folder)
        else:
            folder.mkdir(0o700)
        return folder

    def remove(self, run_id: int) -> None:
        """Remove a run's folder, or keep it for another under a name of its own."""
        folder = job_folder(self._scratch, run_id)
        try:
            if not self._has_spare and _is_as_new(folder):
                folder.rename(self._spare)
                self._has_spare = True
                return
        except OSError:
            pass  # it is not there, or cannot be looked at
        remove_folder(folder)

    def close(self) -> None:
        """Keep none."""
        remove_folder(self._spare)


def _is_as_new(folder: Path) -> bool:
    if folder.lstat().st_mode != stat.S_IFDIR | 0o700:
        return False
    if any(name.startswith(("system.", "user.")) for name in os.listxattr(folder)):  # an access list, say
        return False
    with os.scandir(folder) as entries:
        found = {entry.name: entry.stat(follow_symlinks=False) for entry in entries}
    return found.keys() == _NAMES and all(
        file.st_mode == stat.S_IFREG | 0o600 and file.st_nlink == 1 and file.st_size <= _SMALL
        for file in found.values()
    )
