"""The job keeper of a node: a process that runs jobs as process trees, for a node agent that must never fork nor wait.

It is forked from the node agent before MPI is initialised and before any thread is started. It hands each job to a
runner of its own (:mod:`hpcpanda.allocation.job_runner`), which it forks when none is idle, and passes on what they say.

Nothing of a job survives, whichever process is killed:

- a runner: the keeper adopts what the runner had below it, ends it, and says that the node was at fault;
- the keeper: each runner sees that it is alone, ends its job and leaves;
- the agent: the keeper sees that, ends its runners, then what they leave to it.

Keeper and runners are in sessions of their own and do not end by the signals of a batch system, so nothing that is sent to
the process group of a rank takes several of them at a time. Who kills all of them at once, as a batch system does with
all processes of a job that it tracks, must take the jobs, too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from pathlib import Path
from typing import Final, NoReturn

from hpcpanda.allocation.job_folders import remove_folders
from hpcpanda.allocation.job_router import Router, enter
from hpcpanda.allocation.job_run import JobEnded, JobRun
from hpcpanda.allocation.job_runner import BATCH_SIGNALS, ENDED, RUN
from hpcpanda.allocation.job_wire import Channel, Frame, FrameKind
from hpcpanda.allocation.process_watch import adopt_orphans, name_process
from hpcpanda.domain.site import Site

CLOSE_S: Final = 15.0
"""Longest that closing waits for the keeper to end what it runs."""


class JobKeeper:
    """The agent's side; no call but :meth:`close` ever waits."""

    def __init__(self, *, scratch: Path, site: Site, log: int) -> None:
        """Fork the keeper.

        Args:
            scratch: node-local folder for the work folders of jobs.
            site: the site.
            log: descriptor for what goes wrong in the keeper itself.
        """
        self._scratch = scratch.resolve()
        self.sock, theirs = socket.socketpair()
        """Readable when there may be notices."""
        agent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self.sock.close()
            _live(theirs, site, self._scratch, log, agent)
        theirs.close()
        self._channel = Channel(self.sock)
        self._status: int | None = None

    def run(self, run: JobRun) -> None:
        """Run a job; a :class:`JobEnded` follows in any case."""
        self._channel.send(Frame(FrameKind.RUN, run.run_id, RUN.dump_json(run)))

    def end(self, run_id: int, why: str) -> None:
        """End a run, with SIGTERM and then SIGKILL; its :class:`JobEnded` has ``why`` as error, unless it ended first."""
        self._channel.send(Frame(FrameKind.END, run_id, why.encode(errors="replace")))

    def forget(self, run_id: int) -> None:
        """Remove the work folder of a run that succeeded."""
        self._channel.send(Frame(FrameKind.FORGET, run_id))

    def notices(self) -> list[JobEnded] | None:
        """Runs that have ended since the last call; None when the keeper is gone."""
        self._channel.flush()
        frames = self._channel.receive()
        if frames is None:
            return None
        return [ENDED.validate_json(frame.body) for frame in frames if frame.kind is FrameKind.ENDED]

    def close(self) -> int:
        """End it and all that it runs, remove the work folders; how it ended, as of :func:`os.waitstatus_to_exitcode`."""
        if self._status is None:
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_RDWR)  # others forked from the agent may hold this end, too
            self.sock.close()
            self._status = self._wait()
            remove_folders(self._scratch)
        return self._status

    def _wait(self) -> int:
        deadline = time.monotonic() + CLOSE_S
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            time.sleep(0.005)


def _live(sock: socket.socket, site: Site, scratch: Path, log: int, agent: int) -> NoReturn:
    """The keeper's own process, from fork to end."""

    def life() -> None:
        name_process("hp-job-keeper")
        nowhere = os.open(os.devnull, os.O_RDONLY)
        for fd, standard in ((nowhere, 0), (log, 1), (log, 2)):
            os.dup2(fd, standard)
        _keep_to_itself()
        signal.set_wakeup_fd(-1)
        for number in BATCH_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        adopt_orphans()
        gc.freeze()  # what the agent has made stays shared with the runners
        router = Router(sock, site, scratch, agent)
        try:
            router.serve()
        finally:
            router.end_all()

    enter(life)


def _keep_to_itself() -> None:
    """No job inherits a descriptor of the agent's, such as an MPI launcher's."""
    for entry in list(os.scandir("/proc/self/fd")):
        if (fd := int(entry.name)) > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)  # noqa: FBT003
