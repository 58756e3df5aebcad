"""A node's work folder: gone when the last process that could use it has ended, however it ended."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

_REMOVE_AT_END: Final = 'trap "" TERM INT HUP; read -r _; rm -rf -- "$0"'
"""Waits for the end of its stdin."""


def make_work_folder(allocation_id: str, scratch: str | None = None) -> Path:
    """A new folder in the node-local folder ``scratch``, or the system's temporary one; a small process removes it.

    The writing end of that process's stdin is never closed: this process holds it, and so do those forked from
    it later, but not the programs that they start.
    """
    parent = os.path.expandvars(scratch) if scratch is not None else None
    folder = Path(tempfile.mkdtemp(prefix=f"hpcpanda-{allocation_id}-", dir=parent))
    watched, _held = os.pipe()
    try:
        subprocess.Popen(
            ["/bin/sh", "-c", _REMOVE_AT_END, str(folder)],
            stdin=watched,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(watched)
    return folder
