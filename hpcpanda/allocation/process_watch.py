"""What the kernel says of a worker's process tree."""

from __future__ import annotations

import os
from pathlib import Path

_PAGE = os.sysconf("SC_PAGESIZE")


def tree_rss_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants, in bytes; 0 when it is gone (proc(5))."""
    total = 0
    todo = [pid]
    while todo:
        current = todo.pop()
        folder = Path("/proc") / str(current)
        try:
            total += int((folder / "statm").read_text().split()[1]) * _PAGE
            todo += map(int, (folder / "task" / str(current) / "children").read_text().split())
        except (OSError, IndexError, ValueError):
            continue
    return total
