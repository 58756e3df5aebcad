"""The fork server of a node: runs the payload's set-up once, then forks workers that share its memory.

:mod:`~hpcpanda.allocation.nursery` starts it. The agent talks to it over a datagram-like socket pair and passes each
worker's descriptors along. It dies with the nursery, and the workers die with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import selectors
import signal
import socket
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from hpcpanda.allocation.board import Board
from hpcpanda.allocation.containers import contain
from hpcpanda.allocation.process_watch import name_process
from hpcpanda.allocation.signals import wake_on
from hpcpanda.allocation.worker import AgentGone, Worker, report_broken
from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.domain.site import ContainerSettings
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms import Prepared, prepare
from hpcpanda.payload.inputs import CutPoints

_PR_SET_PDEATHSIG: Final = 1
_MAX_MESSAGE: Final = 65536
EXIT_STATUS: Final = struct.Struct("<i")
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent dies: prctl(2), PR_SET_PDEATHSIG."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class SetUp:
    """The set-up has ended."""

    seconds: float
    error: str | None


@dataclass(frozen=True, slots=True)
class Forked:
    """A worker process exists."""

    slot: int
    pid: int


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker process has ended; ``status`` as of :func:`os.waitstatus_to_exitcode`."""

    pid: int
    status: int


Notice = SetUp | Forked | Exited
_NOTICES: Final = {c.__name__: c for c in (SetUp, Forked, Exited)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkSettings:
    """What all fork servers of a node share."""

    work_folder: Path
    """Node-local; each worker gets a folder of its own in it."""
    pins: tuple[int, ...]
    """Processor of each slot; empty: workers are not pinned."""
    containers: ContainerSettings | None = None
    """How commands are run in containers here."""


class ForkServer:
    """The agent's side of a fork server."""

    def __init__(self, sock: socket.socket, life: int, kill: Callable[[], None]) -> None:
        """``life``: pipe on which its exit status comes; ``kill``: asks for its end."""
        self.sock = sock
        self.sock.settimeout(0)
        self._kill = kill
        self._life = life
        self._status: int | None = None

    def fork_worker(self, slot: int, sock: socket.socket, log: int) -> None:
        """Ask for a worker; a :class:`Forked` notice follows."""
        socket.send_fds(self.sock, [str(slot).encode()], [sock.fileno(), log])

    def notices(self) -> list[Notice] | None:
        """What it has said since the last call; None when it is gone."""
        found: list[Notice] = []
        while True:
            try:
                raw = self.sock.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return found
            except ConnectionError:
                raw = b""
            if not raw:
                return found or None
            name, values = json.loads(raw)
            found.append(_NOTICES[name](*values))

    def close(self) -> int:
        """End it and every worker that is left; how it ended, as of :func:`os.waitstatus_to_exitcode`."""
        if self._status is None:
            self.sock.close()
            self._kill()
            said = os.read(self._life, EXIT_STATUS.size)  # waits for its end
            os.close(self._life)
            self._status = EXIT_STATUS.unpack(said)[0] if len(said) == EXIT_STATUS.size else -signal.SIGKILL
        return self._status


def selector_with_children(sock: socket.socket) -> tuple[selectors.BaseSelector, int]:
    """A selector that wakes for messages and when a child has ended, and the descriptor that tells of the latter."""
    wake = wake_on(signal.SIGCHLD)
    selector = selectors.DefaultSelector()
    selector.register(sock, selectors.EVENT_READ)
    selector.register(wake, selectors.EVENT_READ)
    return selector, wake


def reaped() -> Iterator[tuple[int, int]]:
    """Children that have ended: process id, and how as of :func:`os.waitstatus_to_exitcode`."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def serve(settings: ForkSettings, board: Board, fds: list[int]) -> NoReturn:
    """The fork server's own process; ``fds``: its line to the agent, its log, its life, the task."""
    try:
        name_process("hp-fork-server")
        die_with_parent()
        sock = socket.socket(fileno=fds[0])
        _redirect(fds[1])
        for fd in (fds[1], fds[2]):
            os.close(fd)
        with os.fdopen(fds[3], "rb") as file:
            file.seek(0)
            spec: TaskSpec = pickle.load(file)  # noqa: S301 - the agent itself wrote it
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        began = time.monotonic()
        try:
            prepared = prepare(spec, contain(settings.containers, spec))
        except HpcPandaError as problem:
            _tell(sock, SetUp(time.monotonic() - began, str(problem)))
            os._exit(1)
        _tell(sock, SetUp(time.monotonic() - began, None))
        _loop(settings, spec, board, sock, prepared)
    except BaseException:  # noqa: BLE001 - nothing may return into the agent's stack
        traceback.print_exc()
    os._exit(0)


def _loop(
    settings: ForkSettings, spec: TaskSpec, board: Board, sock: socket.socket, prepared: Prepared
) -> None:
    selector, wake = selector_with_children(sock)
    while True:
        for key, _ in selector.select():
            if key.fd == wake:
                os.read(wake, 4096)
                for pid, status in reaped():
                    _tell(sock, Exited(pid, status))
                continue
            message, fds, _, _ = socket.recv_fds(sock, 64, 2)
            if not message:
                return
            slot = int(message)
            pid = os.fork()
            if pid == 0:
                selector.close()
                signal.set_wakeup_fd(-1)
                os.close(wake)
                sock.close()
                _work(settings, spec, board, slot, prepared, fds)
            for fd in fds:
                os.close(fd)
            _tell(sock, Forked(slot, pid))


def _work(
    settings: ForkSettings, spec: TaskSpec, board: Board, slot: int, prepared: Prepared, fds: list[int]
) -> NoReturn:
    """A worker's own process."""
    code = 1
    try:
        name_process("hp-worker")
        die_with_parent()
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if settings.pins:
            os.sched_setaffinity(0, {settings.pins[slot]})
        sock = socket.socket(fileno=fds[0])
        _redirect(fds[1])
        os.close(fds[1])
        folder = settings.work_folder / f"slot-{slot}"
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        align = CutPoints(spec.inputs).align
        try:
            Worker(slot, sock, board, prepared.runner(folder), align).serve()
            code = 0
        except AgentGone:
            pass
        except BaseException as problem:  # noqa: BLE001 - the agent must hear of anything
            traceback.print_exc()
            report_broken(sock, problem)
    finally:
        os._exit(code)


def _tell(sock: socket.socket, notice: Notice) -> None:
    values = [getattr(notice, name) for name in notice.__slots__]
    sock.send(json.dumps([type(notice).__name__, values]).encode())


def _redirect(log: int) -> None:
    """Read stdin from nowhere, write stdout and stderr to the log."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(log, 1)
    os.dup2(log, 2)
