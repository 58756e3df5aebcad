"""The worker processes of a node's events, one a slot: started, told to stop, watched, ended and put away."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from hpcpanda.allocation.board import Board
from hpcpanda.allocation.forkserver import ForkServer
from hpcpanda.allocation.process_watch import tree_rss_bytes
from hpcpanda.allocation.wire import STOP, FrameReader
from hpcpanda.allocation.worker_log import LogPipe, NodeLog
from hpcpanda.domain.task import Resources

BROKEN_WORKERS: Final = 3
"""So many workers in a row that die before they are ready mean that the payload cannot run here."""


@dataclass(slots=True)
class WorkerProcess:
    """A worker as its agent knows it."""

    slot: int
    sock: socket.socket
    reader: FrameReader
    log: LogPipe
    pid: int = 0
    """0 until the fork server has told it."""
    ready: bool = False
    hung_up: bool = False
    status: int | None = None
    condemned: str | None = None
    """Why the agent ended it."""

    @property
    def dead(self) -> bool:
        """Whether all that it said was read, and its end is known."""
        return self.hung_up and self.status is not None

    def stop(self) -> None:
        """Tell it to finish its range and leave."""
        with contextlib.suppress(OSError):  # it is gone
            self.sock.send(STOP)

    def kill(self, why: str | None) -> None:
        """End it, and what it has started; ``why`` if it is to blame."""
        self.condemned = self.condemned or why
        if self.pid == 0:  # not known yet
            return
        for kill in (os.killpg, os.kill):
            try:
                kill(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue

    def excess(self, board: Board, limits: Resources, now: float) -> str | None:
        """What it takes too much of: time for a range, or memory."""
        in_hand = board.read(self.slot)
        if in_hand is not None and now - in_hand.since > limits.range_timeout_s:
            return f"the range took longer than {limits.range_timeout_s} s"
        used = tree_rss_bytes(self.pid) >> 20
        if used > limits.memory_mb:
            return f"the worker used {used} MiB of memory; the limit is {limits.memory_mb} MiB"
        return None


class Crew:
    """The workers of a node.

    Args:
        server: forks them.
        board: shows what each has in hand.
        log: where what they print goes.
        selector: of the rank's loop; data of a key is called when it is readable.
        heard: to be called when a worker has said something, or has hung up.
    """

    def __init__(
        self,
        *,
        server: ForkServer,
        board: Board,
        log: NodeLog,
        selector: selectors.BaseSelector,
        heard: Callable[[WorkerProcess], None],
    ) -> None:
        self._server = server
        self._board = board
        self._log = log
        self._selector = selector
        self._heard = heard
        self._workers: dict[int, WorkerProcess] = {}
        self._unborn: deque[WorkerProcess] = deque()

    @property
    def slots(self) -> frozenset[int]:
        """Slots that have a worker, however it is doing."""
        return frozenset(self._workers)

    def __iter__(self) -> Iterator[WorkerProcess]:
        """All workers; some may be put away meanwhile."""
        return iter(list(self._workers.values()))

    def has(self, worker: WorkerProcess) -> bool:
        """Whether it was not put away."""
        return self._workers.get(worker.slot) is worker

    def start(self, slot: int) -> None:
        """Have a worker forked for a slot that has none."""
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        pipe = LogPipe(self._log)
        worker = WorkerProcess(slot, ours, FrameReader(ours), pipe)
        self._board.clear(slot)
        self._workers[slot] = worker
        self._unborn.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._heard(worker))
        self.follow(pipe)
        self._server.fork_worker(slot, theirs, pipe.write_end)
        theirs.close()
        os.close(pipe.write_end)

    def follow(self, pipe: LogPipe) -> None:
        """Read what comes through a pipe until nobody writes any more."""

        def read() -> None:
            if not pipe.read():
                self._selector.unregister(pipe.fd)

        self._selector.register(pipe.fd, selectors.EVENT_READ, read)

    def forked(self, pid: int) -> None:
        """The next of the workers that were asked for is there."""
        worker = self._unborn.popleft()
        worker.pid = pid
        if worker.condemned:
            worker.kill(None)

    def exited(self, pid: int, status: int) -> WorkerProcess | None:
        """A worker has ended; gives it unless it was put away already."""
        worker = next((w for w in self if w.pid == pid), None)
        if worker is not None:
            worker.kill(None)  # programs that it left behind
            worker.status = status
        return worker

    def hang_up(self, worker: WorkerProcess) -> None:
        """Nothing more is read of it."""
        self._selector.unregister(worker.sock)
        worker.hung_up = True

    def stop(self, slots: Collection[int]) -> None:
        """Tell the workers of slots to finish their ranges and leave."""
        for worker in self:
            if worker.slot in slots:
                worker.stop()

    def kill(self) -> None:
        """End all."""
        for worker in self:
            worker.kill(None)

    def watch(self, limits: Resources, now: float) -> None:
        """End workers that take too long or too much memory."""
        for worker in self:
            if worker.pid and not worker.condemned and (why := worker.excess(self._board, limits, now)):
                worker.kill(why)

    def put_away(self, worker: WorkerProcess) -> None:
        """Its slot is free."""
        del self._workers[worker.slot]
        for fd in (worker.sock.fileno(), worker.log.fd):
            if fd in self._selector.get_map():
                self._selector.unregister(fd)
        worker.sock.close()
        worker.log.close()


def obituary(who: str, status: int) -> str:
    """How a process has ended, in words; a negative status is a signal's number."""
    if status < 0:
        try:
            return f"{who} was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"{who} was ended by signal {-status}"
    return f"{who} left with exit status {status}"
