"""A few bytes shared by the workers of a node and their agent: which range each worker has in hand.

What a worker was doing when it died must be known exactly, so that only the guilty range is blamed;
a message could not be sent any more, memory shared since before the fork is still there.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_SLOT: Final = struct.Struct("<QQQd")
_STRIDE: Final = 64
"""One cache line a worker."""


@dataclass(frozen=True, slots=True)
class InHand:
    """The range a worker is running."""

    epoch: int
    first: int
    last: int
    since: float
    """``time.monotonic()`` at its start."""


class Board:
    """One line a worker slot; created before the fork server, written by workers, read by the agent."""

    def __init__(self, slots: int) -> None:
        self._memory = mmap.mmap(-1, slots * _STRIDE)

    def writer(self, slot: int) -> Callable[[int, int, int, float], None]:
        """A fast function for a worker: ``write(epoch, first, last, since)``; ``last`` 0 clears."""
        memory, pack_into, at = self._memory, _SLOT.pack_into, slot * _STRIDE

        def write(epoch: int, first: int, last: int, since: float) -> None:
            pack_into(memory, at, epoch, first, last, since)

        return write

    def read(self, slot: int) -> InHand | None:
        """What the worker of a slot has in hand; None when it waits."""
        epoch, first, last, since = _SLOT.unpack_from(self._memory, slot * _STRIDE)
        return InHand(epoch, first, last, since) if last else None

    def clear(self, slot: int) -> None:
        """Forget what a dead worker had in hand."""
        self.writer(slot)(0, 0, 0, 0.0)
