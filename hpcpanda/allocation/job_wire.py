"""Frames between a node agent, its job keeper, and the keeper's runners, over stream sockets.

A frame is ``uint32 length | uint64 run | uint8 kind`` and a body of that length. No side ever waits for another:
what the socket does not take is kept and sent when it does.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_HEAD: Final = struct.Struct("<IQB")
_READ: Final = 1 << 20


class FrameKind(IntEnum):
    """What a frame is."""

    RUN = 1
    """To the keeper: run a job; the body is a :class:`~hpcpanda.allocation.job_run.JobRun`."""
    END = 2
    """To the keeper: end a run; the body is why."""
    FORGET = 3
    """To the keeper: remove a run's work folder."""
    ENDED = 4
    """From the keeper: a run has ended; the body is a :class:`~hpcpanda.allocation.job_run.JobEnded`."""
    MORE = 5
    """From the keeper: it has read a good deal; send what you have kept."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message about one run."""

    kind: FrameKind
    run_id: int
    body: bytes = b""


class Channel:
    """One end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self.sock = sock
        self.received = 0
        """Bytes read so far."""
        self._in = bytearray()
        self._out = bytearray()

    @property
    def pending(self) -> bool:
        """Whether something is kept that the socket did not take."""
        return bool(self._out)

    def send(self, frame: Frame) -> None:
        """Send a frame, as far as the socket takes it now; nobody hears it when the other side is gone."""
        self._out += _HEAD.pack(len(frame.body), frame.run_id, frame.kind)
        self._out += frame.body
        self.flush()

    def flush(self) -> None:
        """Send what was kept, as far as the socket takes it."""
        try:
            while self._out:
                del self._out[: self.sock.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()  # receive() tells of the end

    def receive(self) -> list[Frame] | None:
        """Frames that have arrived; None when the other side is gone."""
        gone = False
        try:
            data = self.sock.recv(_READ)
            gone = not data
            self.received += len(data)
            self._in += data
        except BlockingIOError:
            pass
        except OSError:
            gone = True
        frames = self._cut()
        return None if gone and not frames else frames

    def _cut(self) -> list[Frame]:
        frames: list[Frame] = []
        at = 0
        while len(self._in) - at >= _HEAD.size:
            length, run_id, kind = _HEAD.unpack_from(self._in, at)
            end = at + _HEAD.size + length
            if len(self._in) < end:
                break
            frames.append(Frame(FrameKind(kind), run_id, bytes(self._in[at + _HEAD.size : end])))
            at = end
        del self._in[:at]
        return frames
