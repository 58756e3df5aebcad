"""A worker: runs the payload over ranges, one after the other, and streams the results to its node agent.

It lives in a process forked from the fork server after the payload's set-up. Results are sent in
groups of at most ``FLUSH_S``, so that tiny ranges cost no message each and a killed worker loses
little more than the range in hand.
"""

from __future__ import annotations

import json
import socket
import struct
import time
import traceback
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from hpcpanda.allocation.board import Board
from hpcpanda.allocation.wire import COMMAND, FAILED_HEAD, FRAME, SCHEMA_RIGHT, WorkerFrame
from hpcpanda.domain.errors import HpcPandaError, InvalidValue
from hpcpanda.domain.ledger import ERROR_TEXT_LIMIT
from hpcpanda.events.adapter import Adapter
from hpcpanda.events.columns import BYTES, Buffer, Schema, encode
from hpcpanda.payload.forms import Runner

FLUSH_S: Final = 0.1
_FLUSH_BYTES: Final = 1 << 20
_LOOK_S: Final = 0.02
"""How often a busy worker looks for a stop command."""

_ENTRY: Final = struct.Struct("<IHHQQQQIfdfI")
"""One :data:`hpcpanda.events.journal.ENTRY`."""

_SCHEMA: Adapter[Schema] = Adapter(Schema)

_RIGHT: Final = COMMAND.unpack(SCHEMA_RIGHT)[1]

Command = tuple[int, int, int, int, float]
Align = Callable[[int, int], int]
"""``align(first, limit)``: the best end of a range that begins at ``first`` and has at most ``limit`` events."""


class AgentGone(Exception):
    """The node agent has closed the connection: nobody wants the results any more."""


class Worker:
    """One worker's loop."""

    def __init__(self, slot: int, sock: socket.socket, board: Board, runner: Runner, align: Align) -> None:
        self._slot = slot
        self._sock = sock
        self._mark = board.writer(slot)
        self._runner = runner
        self._align = align
        self._commands: deque[Command] = deque()
        self._partial = b""
        self._schema: Schema | None = None
        self._entries: list[bytes] = []
        self._data: list[Buffer] = []
        self._size = 0
        self._flushed = self._looked = time.monotonic()
        self._clock_offset = time.time() - time.monotonic()

    def serve(self) -> None:
        """Run commands until told to stop; raises :class:`AgentGone` when nobody listens any more."""
        self._send(WorkerFrame.READY)
        while True:
            self._flush()
            while not self._commands:
                self._receive()
            command = self._commands[0]
            if command[0] == 0:
                self._runner.close()
                return
            if self._run(command):
                self._commands.popleft()
            else:
                self._drop()

    def _run(self, command: Command) -> bool:
        """Run one command's ranges; False when a stop came in between."""
        epoch, first, last, step, latest_start = command
        align, run, mark = self._align, self._runner.run, self._mark
        now = time.monotonic()
        while first < last:
            if now - self._flushed > FLUSH_S or self._size > _FLUSH_BYTES:
                self._flush()
            if now - self._looked > _LOOK_S:
                self._looked = now
                self._look()
                if self._commands[-1][0] == 0:
                    self._commands[0] = (epoch, first, last, step, latest_start)
                    return False
            if now > latest_start:
                self._flush()
                self._send(WorkerFrame.SKIPPED, FAILED_HEAD.pack(first, last, epoch))
                return True
            end = min(align(first, step), last)
            mark(epoch, first, end, now)
            cpu = time.process_time()
            try:
                self._keep(run(first, end), end - first)
            except HpcPandaError as problem:
                self._fail(epoch, first, end, str(problem))
            else:
                was, now = now, time.monotonic()
                self._entries.append(
                    _ENTRY.pack(
                        epoch, self._slot, 0, first, end, self._at, self._length, self._crc,
                        time.process_time() - cpu, was + self._clock_offset, now - was, 0,
                    )
                )  # fmt: skip
            mark(0, 0, 0, 0.0)
            first = end
        return True

    def _keep(self, output: object, events: int) -> None:
        """Check and hold a range's output; sets the offset, length and checksum of its entry."""
        schema: Schema
        buffers: Sequence[Buffer]
        if type(output) is bytes:
            schema, buffers = BYTES, (output,)
        else:
            schema, buffers = encode(output, events)
        if schema is not self._schema and schema != self._schema:
            self._agree_on(schema)
        self._at = self._size
        crc = length = 0
        for buffer in buffers:
            if buffer:
                crc = zlib.crc32(buffer, crc)
                length += len(buffer)
                self._data.append(buffer)
        self._crc = crc
        self._length = length
        self._size += length

    def _agree_on(self, schema: Schema) -> None:
        """Have the first columns compared with those of the task's other workers."""
        if self._schema is not None:
            raise _columns_differ(self._schema.difference(schema) or "")
        self._flush()
        self._send(WorkerFrame.SCHEMA, _SCHEMA.dump_json(schema))
        while True:
            answer = next((c for c in self._commands if c[0] == 0 and c[1]), None)
            if answer is not None:
                break
            self._receive()
        self._commands.remove(answer)
        if answer[1] != _RIGHT:
            names = ", ".join(f"{c.name}: {c.dtype}" for c in schema.columns) or "bytes"
            raise _columns_differ(f"this range has {names}, earlier ones have others")
        self._schema = schema

    def _fail(self, epoch: int, first: int, last: int, error: str) -> None:
        self._flush()
        body = FAILED_HEAD.pack(first, last, epoch) + error[:ERROR_TEXT_LIMIT].encode()
        self._send(WorkerFrame.FAILED, body)

    def _drop(self) -> None:
        """Give back all that was not started, then see the stop."""
        self._flush()
        while self._commands[0][0]:
            epoch, first, last, _, _ = self._commands.popleft()
            self._send(WorkerFrame.SKIPPED, FAILED_HEAD.pack(first, last, epoch))

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if self._entries:
            entries, data = b"".join(self._entries), self._data
            self._entries, self._data, self._size = [], [], 0
            self._send(WorkerFrame.RESULTS, entries, data)

    def _send(self, kind: WorkerFrame, body: bytes = b"", data: Sequence[Buffer] = ()) -> None:
        size = sum(map(len, data))
        whole = b"".join((FRAME.pack(len(body), size, kind), body, *data))
        try:
            self._sock.sendall(whole)
        except ConnectionError:
            raise AgentGone from None

    def _look(self) -> None:
        """Take commands that have arrived."""
        try:
            self._take(self._sock.recv(4096, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except ConnectionError:
            raise AgentGone from None

    def _receive(self) -> None:
        """Wait until something arrives."""
        try:
            self._take(self._sock.recv(4096))
        except ConnectionError:
            raise AgentGone from None

    def _take(self, got: bytes) -> None:
        if not got:
            raise AgentGone
        raw = self._partial + got
        whole = len(raw) - len(raw) % COMMAND.size
        self._commands.extend(COMMAND.iter_unpack(raw[:whole]))
        self._partial = raw[whole:]


def _columns_differ(difference: str) -> InvalidValue:
    return InvalidValue("result", f"{difference}; all ranges of a task must have the same columns")


def report_broken(sock: socket.socket, problem: BaseException) -> None:
    """Tell the agent that this worker could not even begin."""
    text = str(problem) if isinstance(problem, HpcPandaError) else traceback.format_exc(limit=-5)
    body = json.dumps(text[-ERROR_TEXT_LIMIT:]).encode()
    sock.sendall(FRAME.pack(len(body), 0, WorkerFrame.BROKEN) + body)
