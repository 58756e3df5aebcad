"""The node agent: keeps every core of its node busy with ranges and writes what they yield.

All I/O of a node happens here, in one thread around one selector; what to do is decided by
:class:`~hpcpanda.allocation.node_work.NodeWork`.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from hpcpanda.allocation.board import Board
from hpcpanda.allocation.crew import BROKEN_WORKERS, Crew, WorkerProcess, obituary
from hpcpanda.allocation.forkserver import Exited, Forked, ForkServer, Notice, SetUp
from hpcpanda.allocation.messages import (
    Bye,
    Chunk,
    Columns,
    Finish,
    Forget,
    SetAside,
    ToAgent,
    ToCoordinator,
)
from hpcpanda.allocation.node_work import NodeWork
from hpcpanda.allocation.wire import (
    COMMAND,
    FAILED_HEAD,
    SCHEMA_RIGHT,
    SCHEMA_WRONG,
    Frame,
    WorkerFrame,
)
from hpcpanda.allocation.worker_log import LogPipe, NodeLog
from hpcpanda.domain.errors import CorruptData, InvalidValue
from hpcpanda.domain.task import TaskSpec
from hpcpanda.events.adapter import Adapter
from hpcpanda.events.columns import Schema
from hpcpanda.events.journal import ENTRY, FailedInEpoch
from hpcpanda.events.recorder import Recorder

REPORT_S: Final = 0.1
_WATCH_S: Final = 0.5
_SCHEMA: Adapter[Schema] = Adapter(Schema)


class Agent:
    """One node's agent."""

    def __init__(
        self,
        *,
        spec: TaskSpec,
        work: NodeWork,
        recorder: Recorder,
        server: ForkServer,
        server_log: LogPipe,
        board: Board,
        log: NodeLog,
        send: Callable[[ToCoordinator], None],
        selector: selectors.BaseSelector,
        reserved: frozenset[int],
        freed: Callable[[frozenset[int]], None],
    ) -> None:
        """``reserved``: slots that jobs have; ``freed``: to be called when the worker of a reserved slot is gone."""
        self._spec = spec
        self._work = work
        self._recorder = recorder
        self._server = server
        self._board = board
        self._send = send
        self._selector = selector
        self._reserved = reserved
        self._freed = freed
        self._crew = Crew(server=server, board=board, log=log, selector=selector, heard=self._on_worker)
        self._set_up = False
        self._broken = 0
        self._finish_at: float | None = None
        self._bye: Bye | None = None
        work.reserve(reserved)
        now = time.monotonic()
        self._began = self._reported = self._watched = now
        selector.register(server.sock, selectors.EVENT_READ, self._on_server)
        self._crew.follow(server_log)
        self._server_log = server_log

    @property
    def ended(self) -> bool:
        """Whether the agent has said bye."""
        return self._bye is not None

    @property
    def hungry(self) -> bool:
        """Whether workers may be waiting for the coordinator's answer."""
        return self._work.hungry

    def receive(self, message: ToAgent) -> None:
        """Act on a message of the coordinator."""
        match message:
            case Chunk():
                self._work.add(message)
                self._feed_all()
            case SetAside():
                self._record(lambda: self._recorder.set_aside(
                    FailedInEpoch(epoch=message.epoch, events=(message.event,))
                ))  # fmt: skip
            case Columns():
                self._fix_schema(message.schema)
            case Forget():
                self._work.forget(message.epochs)
            case Finish():
                self.finish(message.grace_s)

    def reserve(self, slots: frozenset[int]) -> None:
        """Start nothing new on these slots, and retire their workers; ``freed`` is called for each, in time."""
        self._reserved |= slots
        self._work.reserve(self._reserved)
        self._crew.stop(slots)
        if empty := slots - self._crew.slots:
            self._freed(empty)

    def unreserve(self, slots: frozenset[int]) -> None:
        """Jobs have left these slots."""
        self._reserved -= slots
        self._work.reserve(self._reserved)
        if self._set_up and self._finish_at is None and not self.ended:
            for slot in slots:
                self._crew.start(slot)

    def busy_seconds(self, now: float) -> list[float]:
        """For how long each worker had work since the last call."""
        return self._work.busy_seconds(now)

    def finish(self, grace_s: float) -> None:
        """Start no new range, give running ones ``grace_s``, then end."""
        deadline = time.monotonic() + grace_s
        self._finish_at = min(deadline, self._finish_at or deadline)
        self._work.stop()
        self._crew.stop(self._crew.slots)
        self.tick()

    def tick(self) -> float:
        """Do what is due; gives the seconds until the next time something may be due."""
        now = time.monotonic()
        if now - self._watched >= _WATCH_S:
            self._watched = now
            self._watch(now)
        if self._recorder.error is not None and not self.ended:
            self._end(f"the spool folder refuses writing: {self._recorder.error}")
        if now - self._reported >= REPORT_S:
            self._report(now)
        if self._finish_at is not None and not self.ended:
            if now >= self._finish_at:
                self._crew.kill()
            if not self._work.in_hand or not self._crew.slots:
                self._end(None)
        return REPORT_S if self._work.in_hand or self._work.has_news else _WATCH_S

    def _report(self, now: float) -> None:
        self._reported = now
        if (report := self._work.report()) is not None:
            self._send(report)
        self._ask()

    def _ask(self) -> None:
        if self._set_up and not self.ended and (want := self._work.want()):
            self._send(want)

    # ---- fork server ----

    def _on_server(self) -> None:
        notices = self._server.notices()
        if notices is None:
            status = self._server.close()
            if self._set_up or status == -signal.SIGKILL:
                who = "the fork server" if self._set_up else "the process that sets the payload up"
                self._end(obituary(who, status), again=True)
            else:
                self._end(obituary("set-up of the payload failed: its process", status), payload_fault=True)
            return
        for notice in notices:
            self._on_notice(notice)

    def _on_notice(self, notice: Notice) -> None:
        match notice:
            case SetUp(error=None):
                self._set_up = True
                for slot in range(len(self._work.slots)):
                    if slot not in self._reserved:
                        self._crew.start(slot)
                self._report(time.monotonic())
            case SetUp(error=error):
                self._end(f"set-up of the payload failed: {error}", payload_fault=True)
            case Forked(pid=pid):
                self._crew.forked(pid)
            case Exited(pid=pid, status=status):
                if (worker := self._crew.exited(pid, status)) is not None:
                    self._bury_if_dead(worker)

    # ---- workers ----

    def _on_worker(self, worker: WorkerProcess) -> None:
        try:
            frames = worker.reader.read()
            if frames is None:
                self._crew.hang_up(worker)
                self._bury_if_dead(worker)
                return
            for frame in frames:
                self._on_frame(worker, frame)
        except (CorruptData, ValueError, struct.error) as problem:
            if self._crew.has(worker):
                self._crew.hang_up(worker)
                worker.kill(f"the worker broke its protocol: {problem}")
                self._bury_if_dead(worker)
            return
        if worker.ready:
            self._feed(worker)
            if self._work.has_failures:
                self._report(time.monotonic())
            else:
                self._ask()

    def _on_frame(self, worker: WorkerProcess, frame: Frame) -> None:
        now = time.monotonic()
        match frame.kind:
            case WorkerFrame.READY:
                worker.ready = True
                self._broken = 0
            case WorkerFrame.SCHEMA:
                right = self._is_right(_SCHEMA.validate_json(bytes(frame.entries)))
                with contextlib.suppress(OSError):  # it has died meanwhile
                    worker.sock.send(SCHEMA_RIGHT if right else SCHEMA_WRONG)
            case WorkerFrame.RESULTS:
                entries = np.frombuffer(frame.entries, dtype=ENTRY).copy()
                if int(entries["length"].sum()) != len(frame.data):
                    raise CorruptData("entries and data of a frame do not agree")
                self._work.results(worker.slot, entries, now)
                self._record(lambda: self._recorder.record(entries, [frame.data]))
            case WorkerFrame.FAILED:
                first, last, epoch = FAILED_HEAD.unpack_from(frame.entries)
                text = bytes(frame.entries[FAILED_HEAD.size :]).decode(errors="replace")
                self._work.failed(worker.slot, epoch, first, last, text, now)
            case WorkerFrame.SKIPPED:
                first, last, epoch = FAILED_HEAD.unpack(frame.entries)
                self._work.skipped(worker.slot, epoch, first, last, now)
            case WorkerFrame.BROKEN:
                worker.condemned = json.loads(bytes(frame.entries))

    def _is_right(self, schema: Schema) -> bool:
        """The first columns are everybody's: whether these are the same."""
        if self._recorder.schema is None:
            self._fix_schema(schema)
            self._send(Columns(schema=schema))
        return self._recorder.schema == schema

    def _fix_schema(self, schema: Schema) -> None:
        try:
            self._recorder.fix_schema(schema)
        except InvalidValue as problem:
            self._end(f"two nodes saw different results: {problem}")

    def _feed_all(self) -> None:
        for worker in self._crew:
            if worker.ready:
                self._feed(worker)

    def _feed(self, worker: WorkerProcess) -> None:
        while not worker.condemned and not worker.hung_up and not self._work.stopped:
            command = self._work.next_command(worker.slot, time.monotonic())
            if command is None:
                return
            message = COMMAND.pack(
                command.epoch, command.first, command.last, command.step, command.latest_start
            )
            try:
                worker.sock.send(message)
            except OSError:
                return

    def _bury_if_dead(self, worker: WorkerProcess) -> None:
        """When a worker has hung up and its exit status is known: blame its range, replace it."""
        if not worker.dead or worker.status is None or not self._crew.has(worker):
            return
        now = time.monotonic()
        error = worker.condemned or obituary("the worker", worker.status)
        if tail := worker.log.tail():
            error += f"; it last printed: {tail}"
        if self._finish_at is None or worker.condemned is not None:
            self._blame(worker, error, now)
        self._work.vacate(worker.slot, now)
        self._crew.put_away(worker)
        self._broken += not worker.ready
        if self._broken >= BROKEN_WORKERS:
            killed = worker.status == -signal.SIGKILL and worker.condemned is None
            self._end(f"workers die before they are ready: {error}", payload_fault=not killed, again=killed)
        elif worker.slot in self._reserved:
            self._freed(frozenset((worker.slot,)))
        elif self._finish_at is None and not self.ended:
            self._crew.start(worker.slot)
            self._report(now)

    def _blame(self, worker: WorkerProcess, error: str, now: float) -> None:
        """The range that a worker had in hand when it died has failed."""
        guilty = self._board.read(worker.slot)
        if guilty is None:
            return
        held = self._work.slots[worker.slot].outstanding.get(guilty.epoch)
        if held is not None and held.covers(guilty.first, guilty.last):
            self._work.failed(worker.slot, guilty.epoch, guilty.first, guilty.last, error, now)

    def _watch(self, now: float) -> None:
        """End workers that take too long or too much memory, and a set-up that never ends."""
        limits = self._spec.resources
        if not self._set_up and now - self._began > limits.setup_timeout_s:
            self._end(f"set-up took longer than {limits.setup_timeout_s} s", payload_fault=True)
        self._crew.watch(limits, now)

    # ---- output ----

    def _record(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as problem:
            self._end(f"the spool folder refuses writing: {problem}")

    def _end(self, error: str | None, *, payload_fault: bool = False, again: bool = False) -> None:
        """Stop everything, make durable what is finished, say bye. The first reason counts."""
        if self.ended:
            return
        self._work.stop()
        self._bye = Bye(error=error, payload_fault=payload_fault, again=again)
        if payload_fault and (tail := self._server_log.tail()) and error is not None:
            self._bye = Bye(error=f"{error}; it last printed: {tail}", payload_fault=True)
        self._selector.unregister(self._server.sock)
        self._server.close()
        leaving = self._crew.slots & self._reserved
        for worker in self._crew:
            self._crew.put_away(worker)
            self._work.vacate(worker.slot, time.monotonic())
        try:
            self._recorder.close()
        except OSError as problem:
            self._bye = Bye(error=f"the spool folder refuses writing: {problem}")
        self._report(time.monotonic())
        self._send(self._bye)
        if leaving:
            self._freed(leaving)


def node_log_path(logs: Path, pack_id: str, rank: int) -> Path:
    """Where the payloads of a node print to."""
    return logs / f"{pack_id}-r{rank}.payload.log"
