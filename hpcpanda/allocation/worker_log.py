"""What the payloads of a node print: into one capped file a node, and the last lines of each worker kept for errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

CAP_BYTES: Final = 16 << 20
"""A node's log file ends here; a payload that floods stdout must not fill the file system."""

_TAIL_BYTES: Final = 2000


class NodeLog:
    """The log file of a node."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._room = CAP_BYTES

    def write(self, text: bytes) -> None:
        """Append, as long as there is room; a full disk loses log lines, never work."""
        if self._room <= 0:
            return
        self._room -= len(text)
        if self._room <= 0:
            text += b"\n... output beyond this size is dropped\n"
        try:
            os.write(self._fd, text)
        except OSError:
            self._room = 0


class LogPipe:
    """The reading end of one worker's stdout and stderr."""

    def __init__(self, log: NodeLog) -> None:
        self.fd, self.write_end = os.pipe()
        os.set_blocking(self.fd, False)
        self._log = log
        self._tail = b""

    def read(self) -> bool:
        """Take what is there; False at the end."""
        try:
            text = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return True
        if not text:
            return False
        self._log.write(text)
        self._tail = (self._tail + text)[-_TAIL_BYTES:]
        return True

    def tail(self) -> str:
        """The last that was printed."""
        while self._tail_grows():
            pass
        return self._tail.decode(errors="replace").strip()

    def _tail_grows(self) -> bool:
        before = self._tail
        return self.read() and self._tail is not before

    def close(self) -> None:
        """Close the reading end."""
        os.close(self.fd)
