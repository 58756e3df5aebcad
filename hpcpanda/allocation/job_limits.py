"""Keeping a running job to what it asked for: memory of its processes, time, and room in its work folder."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcpanda.allocation.process_watch import descendants, pss_bytes, rss_bytes
from hpcpanda.domain.jobs import JobRequest

LOOK_S: Final = 0.5
"""Seconds between two looks at a job that runs for long; a job that has just begun is looked at sooner."""
DISK_S: Final = 2.0
"""Seconds between two looks into its work folder."""
MAX_FILES: Final = 20_000
"""So many files of a work folder are looked at; what is beyond them is not counted."""
_FIRST_LOOK_S: Final = 0.02
_REST: Final = 20.0
"""After a look that took long there is a pause so many times longer."""
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that a job has broken."""

    why: str
    at_once: bool
    """Whether waiting for it to end by itself would harm others on the node."""


class Watch:
    """The limits of one job whose processes are all the descendants of this process."""

    def __init__(self, request: JobRequest, folder: Path, streams: Sequence[int], began: float) -> None:
        """``streams``: descriptors of the files that it prints to; ``began``: of ``time.monotonic()``."""
        self._request = request
        self._folder = folder
        self._streams = streams
        self._wall = began + request.walltime_s
        self._step = _FIRST_LOOK_S
        self._next = began + self._step
        self._disk_next = began + DISK_S
        self._shared_next = began
        self.peak_bytes = 0
        """Highest resident memory of all its processes together that was seen."""
        self.peak_disk = 0
        """Most bytes in its work folder that were seen."""

    @property
    def due(self) -> float:
        """When to look next."""
        return min(self._next, self._wall)

    def look(self, now: float) -> Excess | None:
        """Look at the job; gives the limit that it has broken."""
        if now >= self._wall:
            return Excess(f"ran for more than {self._request.walltime_s:g} s (job.walltime_s)", at_once=False)
        self._step = min(2 * self._step, LOOK_S)
        self._next = now + self._step
        return self._memory(now) or self._disk(now)

    def _memory(self, now: float) -> Excess | None:
        limit = self._request.memory_mb * _MIB
        processes = list(descendants(os.getpid()))
        used = sum(map(rss_bytes, processes))
        if used > limit and len(processes) > 1:  # what they share was counted for each of them
            if now < self._shared_next:
                return None
            began = time.monotonic()
            used = sum(map(pss_bytes, processes))
            self._shared_next = now + _REST * (time.monotonic() - began)
        self.peak_bytes = max(self.peak_bytes, used)
        if used <= limit:
            return None
        return Excess(
            f"used {used // _MIB} MiB; the limit is {self._request.memory_mb} MiB (job.memory_mb)",
            at_once=True,
        )

    def _disk(self, now: float) -> Excess | None:
        limit = self._request.disk_mb * _MIB
        used = sum(os.fstat(fd).st_size for fd in self._streams)
        if used <= limit and now >= self._disk_next:
            began = time.monotonic()
            used = folder_bytes(self._folder)
            self._disk_next = now + max(DISK_S, _REST * (time.monotonic() - began))
        self.peak_disk = max(self.peak_disk, used)
        return disk_excess(self._request, used) if used > limit else None


def disk_excess(request: JobRequest, used: int) -> Excess:
    """What to say of a job with so many bytes in its work folder."""
    return Excess(
        f"kept {used // _MIB} MiB in its work folder; the limit is {request.disk_mb} MiB (job.disk_mb)",
        at_once=True,
    )


def folder_bytes(folder: Path) -> int:
    """Room that the files below a folder take, in bytes; at most :data:`MAX_FILES` are looked at."""
    total = looked = 0
    linked: set[int] = set()
    todo = [os.fspath(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    looked += 1
                    if looked > MAX_FILES:
                        return total
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink == 1 or found.st_ino not in linked:
                        total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif found.st_nlink > 1:
                        linked.add(found.st_ino)
        except OSError:
            continue
    return total
