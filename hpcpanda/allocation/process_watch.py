"""What the kernel says of a process tree, and how to end one (proc(5), prctl(2))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from io import FileIO
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGESIZE")
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NAME: Final = 15
_libc = ctypes.CDLL(None, use_errno=True)


def tree_rss_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants, in bytes; 0 when it is gone."""
    return rss_bytes(pid) + sum(map(rss_bytes, descendants(pid)))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process, pages shared with others included; 0 when it is gone."""
    words = _read(f"/proc/{pid}/statm").split()
    return int(words[1]) * _PAGE if words else 0


def pss_bytes(pid: int) -> int:
    """Resident memory of a process, each page divided by the number of processes that share it.

    The kernel walks all pages of the process for it, some milliseconds a GiB; where it does not tell, the resident
    memory.
    """
    for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) << 10
    return rss_bytes(pid)


def children(pid: int) -> list[int]:
    """Processes that a process has started, from any of its threads, and those it has adopted."""
    found: list[int] = []
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/task") as threads:
        for thread in threads:
            found += map(int, _read(f"/proc/{pid}/task/{thread.name}/children").split())
    return found


def descendants(pid: int) -> Iterator[int]:
    """All processes below a process."""
    todo = children(pid)
    while todo:
        current = todo.pop()
        yield current
        todo += children(current)


def name_process(name: str) -> None:
    """Give this process a name of at most 15 bytes, which ``ps`` and ``top`` show; programs that it starts have their own."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def adopt_orphans() -> None:
    """From now on, processes below this one whose parent ends become its children, however they were started."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children(reap: Callable[[], bool], *, spare: Collection[int] = (), seconds: float = 10.0) -> bool:
    """SIGKILL for all processes below this one, which must adopt orphans.

    Only children are killed, and what they leave comes up as the next children: so no process id is used that
    somebody else may have reaped.

    Args:
        reap: takes what has ended from the kernel; tells whether no child at all is left.
        spare: children that live on.
        seconds: gives up after so long, for instance on a process that hangs in a file system.

    Returns:
        Whether all have ended.
    """
    deadline = time.monotonic() + seconds
    seen_none = 0
    while not reap():
        left = [child for child in children(os.getpid()) if child not in spare]
        seen_none = 0 if left or not spare else seen_none + 1
        if seen_none == 2:  # a single look may miss a child that was adopted meanwhile
            return True
        if time.monotonic() > deadline:
            return False
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)
    return True


def _read(path: str) -> bytes:
    try:
        with FileIO(path) as file:
            return file.readall()
    except OSError:
        return b""
