"""What the job keeper's process does: it starts runners, hands each a job at a time, and buries those that were killed."""

from __future__ import annotations

import os
import selectors
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from hpcpanda.allocation.job_folders import job_folder, remove_folders
from hpcpanda.allocation.job_outcome import remove_folder
from hpcpanda.allocation.job_process import base_environment
from hpcpanda.allocation.job_report import never_ran
from hpcpanda.allocation.job_run import JobEnded
from hpcpanda.allocation.job_runner import ENDED, RUN, JobRunner
from hpcpanda.allocation.job_wire import Channel, Frame, FrameKind
from hpcpanda.allocation.process_watch import end_children, name_process
from hpcpanda.domain.site import Site

_CREDIT: Final = 1 << 14
"""The agent hears so often, in bytes, that its commands were read; less than any socket holds."""
_PARENT_S: Final = 1.0
"""Seconds between two looks whether the agent lives, should its end not be seen on the socket."""
_STUCK_S: Final = 0.5
"""Time for what a killed runner leaves to end; what hangs longer in a file system does not hold up other jobs."""


@dataclass(slots=True, eq=False)
class _Runner:
    """A runner as the keeper knows it."""

    pid: int
    channel: Channel
    run: Frame | None = None
    """The job that it runs."""


class Router:
    """Hands jobs to runners, and what they say to the agent."""

    def __init__(self, sock: socket.socket, site: Site, scratch: Path, agent: int) -> None:
        """``sock``: to the agent, whose process id is ``agent``; ``scratch``: a path without links in it."""
        self._site = site
        self._scratch = scratch
        self._agent_pid = agent
        self._base = base_environment(os.environ)
        self._agent = Channel(sock)
        self._credit = _CREDIT
        self._runners: dict[int, _Runner] = {}
        """By process id."""
        self._idle: list[_Runner] = []
        self._busy: dict[int, _Runner] = {}
        """By run."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ, None)

    def serve(self) -> None:
        """Until the agent hangs up or is gone."""
        while os.getppid() == self._agent_pid:
            for key, events in self._selector.select(_PARENT_S):
                runner: _Runner | None = key.data
                channel = self._agent if runner is None else runner.channel
                if events & selectors.EVENT_WRITE:
                    channel.flush()
                    self._watch(channel, runner)
                if not events & selectors.EVENT_READ:
                    continue
                frames = channel.receive()
                if runner is not None:
                    self._on_runner(runner, frames)
                elif frames is None:
                    return
                else:
                    self._on_agent(frames)

    def end_all(self) -> None:
        """End the runners, and what they leave; remove all work folders."""
        end_children(_reap)
        remove_folders(self._scratch)

    def _on_agent(self, frames: list[Frame]) -> None:
        for frame in frames:
            match frame.kind:
                case FrameKind.RUN:
                    self._run(frame)
                case FrameKind.END:
                    if (runner := self._busy.get(frame.run_id)) is not None:
                        self._send(runner.channel, runner, frame)
                case FrameKind.FORGET:
                    self._forget(frame)
        if self._agent.received >= self._credit:
            self._credit = self._agent.received + _CREDIT
            self._send(self._agent, None, Frame(FrameKind.MORE, 0))

    def _on_runner(self, runner: _Runner, frames: list[Frame] | None) -> None:
        if frames is None:
            self._bury(runner)
            return
        for frame in frames:
            del self._busy[frame.run_id]
            runner.run = None
            self._idle.append(runner)
            self._send(self._agent, None, frame)

    def _run(self, frame: Frame) -> None:
        try:
            runner = self._idle.pop() if self._idle else self._fork_runner()
        except OSError as error:
            self._lost(frame, f"the node cannot start another process: {error.strerror}")
            return
        runner.run = frame
        self._busy[frame.run_id] = runner
        self._send(runner.channel, runner, frame)

    def _forget(self, frame: Frame) -> None:
        """Let a runner do it, since a large folder takes its time: the one that is next to need a folder."""
        runner = self._idle[-1] if self._idle else next(iter(self._runners.values()), None)
        if runner is None:
            remove_folder(job_folder(self._scratch, frame.run_id))
        else:
            self._send(runner.channel, runner, frame)

    def _fork_runner(self) -> _Runner:
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            ours.close()
            self._agent.sock.close()
            self._selector.close()
            for other in self._runners.values():
                other.channel.sock.close()  # or they would not see the keeper's end
            name_process("hp-job-runner")
            enter(lambda: JobRunner(theirs, self._site, self._scratch, self._base).serve())
        theirs.close()
        runner = self._runners[pid] = _Runner(pid, Channel(ours))
        self._selector.register(ours, selectors.EVENT_READ, runner)
        return runner

    def _bury(self, runner: _Runner) -> None:
        """A runner has ended by itself or was killed; nobody should have done that."""
        self._selector.unregister(runner.channel.sock)
        runner.channel.sock.close()
        del self._runners[runner.pid]
        if runner in self._idle:
            self._idle.remove(runner)
        end_children(_reap, spare=self._runners.keys(), seconds=_STUCK_S)
        if runner.run is not None:
            del self._busy[runner.run.run_id]
            self._lost(
                runner.run,
                "the process that kept it on its node has ended: the job ended it, or the node is short of memory",
            )

    def _lost(self, frame: Frame, why: str) -> None:
        run = RUN.validate_json(frame.body)
        remove_folder(job_folder(self._scratch, run.run_id))
        report = never_ran(run, started=time.time(), error=why)
        ended = JobEnded(run_id=run.run_id, report=report, node_at_fault=True, runner_lost=True)
        self._send(self._agent, None, Frame(FrameKind.ENDED, run.run_id, ENDED.dump_json(ended)))

    def _send(self, channel: Channel, runner: _Runner | None, frame: Frame) -> None:
        channel.send(frame)
        if channel.pending:
            self._watch(channel, runner)

    def _watch(self, channel: Channel, runner: _Runner | None) -> None:
        write = selectors.EVENT_WRITE if channel.pending else 0
        self._selector.modify(channel.sock, selectors.EVENT_READ | write, runner)


def enter(life: Callable[[], None]) -> NoReturn:
    """Live in a session of one's own; nothing returns into the stack of the process that forked this one."""
    code = 1
    try:
        os.setsid()
        life()
        code = 0
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        os._exit(code)


def _reap() -> bool:
    """Take what has ended from the kernel; whether no child is left."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return False
        except ChildProcessError:
            return True
