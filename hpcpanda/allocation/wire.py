"""Bytes between a node agent and its workers, over one stream socket a worker.

To the worker: fixed-size commands. From the worker: frames ``uint32 a | uint32 b | uint8 kind`` and a
body of ``a + b`` bytes; a RESULTS body is ``a`` bytes of journal entries and ``b`` bytes of data.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from hpcpanda.domain.errors import CorruptData

COMMAND: Final = struct.Struct("<IQQQd")
"""Epoch, first, last, events a range, latest ``time.monotonic()`` to start one; epoch 0 = stop."""

STOP: Final = COMMAND.pack(0, 0, 0, 0, 0.0)
SCHEMA_RIGHT: Final = COMMAND.pack(0, 1, 0, 0, 0.0)
SCHEMA_WRONG: Final = COMMAND.pack(0, 2, 0, 0, 0.0)
"""Answers to a SCHEMA frame, for which the worker waits."""

FRAME: Final = struct.Struct("<IIB")
MAX_FRAME: Final = 2**31


class WorkerFrame(IntEnum):
    """What a worker says."""

    READY = 1
    """It can run ranges."""
    SCHEMA = 2
    """Columns of the results that follow (JSON); the worker waits for the answer."""
    RESULTS = 3
    """Finished ranges."""
    FAILED = 4
    """The payload failed on a range: first, last, epoch, then the error text."""
    SKIPPED = 5
    """A range not started, for lack of time: first, last, epoch."""
    BROKEN = 6
    """The payload cannot run in this worker at all: error text."""


FAILED_HEAD: Final = struct.Struct("<QQI")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of a worker."""

    kind: WorkerFrame
    entries: memoryview
    data: memoryview


class FrameReader:
    """Cuts a worker's byte stream into frames, without copying large bodies twice."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._head = bytearray(FRAME.size)
        self._body: bytearray | None = None
        self._have = 0

    def read(self) -> list[Frame] | None:
        """All frames that have arrived; None when the worker has hung up.

        Raises:
            CorruptData: the stream is not what a worker writes.
        """
        frames: list[Frame] = []
        while True:
            target = self._head if self._body is None else self._body
            try:
                got = self._sock.recv_into(memoryview(target)[self._have :])
            except BlockingIOError:
                return frames
            except ConnectionError:
                got = 0
            if got == 0:
                return frames or None
            self._have += got
            while self._have == len(target):
                self._have = 0
                if self._body is None:
                    a, b, _ = FRAME.unpack(self._head)
                    if a + b > MAX_FRAME:
                        raise CorruptData(f"a worker announced a frame of {a + b} bytes")
                    target = self._body = bytearray(a + b)
                else:
                    frames.append(self._frame(self._body))
                    self._body = None
                    break
            if len(frames) >= 64:
                return frames

    def _frame(self, body: bytearray) -> Frame:
        a, _, kind = FRAME.unpack(self._head)
        try:
            return Frame(WorkerFrame(kind), memoryview(body)[:a], memoryview(body)[a:])
        except ValueError:
            raise CorruptData(f"a worker sent a frame of unknown kind {kind}") from None
