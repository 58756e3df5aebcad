"""The nursery of a node: a process that starts fork servers, one for each task of events that the pack runs.

It is forked from the node agent before MPI is initialised and before any thread is started. So nothing is ever
forked under MPI, and a pack that gets a task of events later can still run it. It dies with the agent, and the fork
servers die with it.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import traceback
from functools import partial
from typing import NoReturn

from hpcpanda.allocation.board import Board
from hpcpanda.allocation.forkserver import (
    EXIT_STATUS,
    ForkServer,
    ForkSettings,
    die_with_parent,
    reaped,
    selector_with_children,
    serve,
)
from hpcpanda.allocation.process_watch import name_process
from hpcpanda.domain.task import TaskSpec


class Nursery:
    """The agent's side of the process that starts fork servers."""

    def __init__(self, settings: ForkSettings, board: Board) -> None:
        self._started = 0
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._pid = os.fork()
        if self._pid == 0:
            self._sock.close()
            _tend(settings, board, theirs)
        theirs.close()

    def fork_server(self, spec: TaskSpec, log: int) -> ForkServer:
        """Start a fork server that runs the set-up of this payload; ``log``: descriptor for what that prints."""
        self._started += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life, life_end = os.pipe()
        text = os.memfd_create("task")  # it may be longer than a message
        try:
            with os.fdopen(os.dup(text), "wb") as file:
                pickle.dump(spec, file)
            fds = [theirs.fileno(), log, life_end, text]
            socket.send_fds(self._sock, [b"%d" % self._started], fds)
        except OSError:  # the nursery is gone: the closed ends tell
            pass
        finally:
            theirs.close()
            os.close(life_end)
            os.close(text)
        return ForkServer(ours, life, partial(self._end_server, self._started))

    def close(self) -> None:
        """End it and everything it started."""
        self._sock.close()
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def _end_server(self, number: int) -> None:
        with contextlib.suppress(OSError):  # the nursery is gone, and all it started
            self._sock.send(b"%d" % number)


def _tend(settings: ForkSettings, board: Board, sock: socket.socket) -> NoReturn:
    """The nursery's own process."""
    try:
        name_process("hp-nursery")
        die_with_parent()
        for signalled in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(signalled, signal.SIG_IGN)
        selector, wake = selector_with_children(sock)
        born: dict[int, tuple[int, int]] = {}
        while True:
            for key, _ in selector.select():
                if key.fd == wake:
                    os.read(wake, 4096)
                    _tell_of_dead(born)
                    continue
                message, fds, _, _ = socket.recv_fds(sock, 64, 4)
                if not message:
                    os._exit(0)
                if fds:
                    born[
                        _start(settings, board, fds, [sock.fileno(), *(life for life, _ in born.values())])
                    ] = fds[2], int(message)
                else:
                    _kill(born, int(message))
    except BaseException:  # noqa: BLE001 - nothing may return into the agent's stack
        traceback.print_exc()
    os._exit(1)


def _start(settings: ForkSettings, board: Board, fds: list[int], mine: list[int]) -> int:
    """Fork a fork server, which does not need the descriptors ``mine``; gives its process id."""
    pid = os.fork()
    if pid == 0:
        for fd in mine:
            os.close(fd)
        serve(settings, board, fds)
    for fd in (fds[0], fds[1], fds[3]):
        os.close(fd)
    return pid


def _kill(born: dict[int, tuple[int, int]], number: int) -> None:
    for pid, (_, theirs) in born.items():
        if theirs == number:  # not reaped yet, so the process id is still its own
            os.kill(pid, signal.SIGKILL)


def _tell_of_dead(born: dict[int, tuple[int, int]]) -> None:
    for pid, status in reaped():
        life, _ = born.pop(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(life, EXIT_STATUS.pack(status))
        os.close(life)
