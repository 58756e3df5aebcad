"""What the head, and the batch system by signals, want of an MPI job's pack."""

from __future__ import annotations

import math
import os
import selectors
import signal
import time
from typing import Final

from hpcpanda.allocation.pack_line import HeadLine
from hpcpanda.allocation.plan import Drain, EndWork, PackStatus, Revoke, ToPack
from hpcpanda.allocation.signals import wake_on

_KILL_S: Final = 2.0
"""Time between SIGTERM and SIGKILL, where no grace time says less."""


class Orders:
    """When the job is to end, by monotonic time."""

    def __init__(self, line: HeadLine, *, task_id: int, epoch: int | None, grace_s: float) -> None:
        """Listen to the head on ``line``, and to SIGTERM, which leaves the job ``grace_s``."""
        self._line: HeadLine | None = line
        self._task_id = task_id
        self._epoch = epoch
        self._grace_s = grace_s
        self.finish_at = math.inf
        """When the command is told to end."""
        self.kill_at = math.inf
        """When it is killed."""
        self.told = False
        """The batch system has signalled the end."""
        self._selector = selectors.DefaultSelector()
        self._selector.register(0, selectors.EVENT_READ, self._on_head)
        self._wake_on_signals()

    @property
    def stopped(self) -> bool:
        """The job is to end, whatever becomes of it."""
        return self.finish_at < math.inf

    def wait(self, seconds: float) -> None:
        """Wait for an order, the end of a process, or so long."""
        for key, _ in self._selector.select(seconds):
            key.data()

    def report(self, status: PackStatus) -> None:
        """Tell the head, if it is there."""
        if self._line is not None:
            try:
                self._line.tell(status)
            except BrokenPipeError:
                self._head_is_gone()

    def finish(self, grace_s: float) -> None:
        """The job may end by itself as long as that leaves time to end it within the grace time."""
        now = time.monotonic()
        self.finish_at = min(self.finish_at, now + max(0.0, grace_s - _KILL_S))
        self.kill_at = min(self.kill_at, now + max(grace_s, _KILL_S))

    def end_command(self) -> None:
        """It is told to end now, and killed a little later."""
        self.kill_at = min(self.kill_at, time.monotonic() + _KILL_S)

    def command_has_ended(self) -> None:
        """Nothing is to be killed any more."""
        self.kill_at = math.inf

    def _on_head(self) -> None:
        messages = self._line.read() if self._line is not None else None
        if messages is None:
            self._head_is_gone()
            return
        for message in messages:
            self._obey(message)

    def _obey(self, message: ToPack) -> None:
        match message:
            case Drain():
                self.finish(message.grace_s)
            case EndWork() if message.task_id == self._task_id:
                self.finish(message.grace_s)
            case Revoke() if message.task_id == self._task_id and self._epoch in message.epochs:
                self.finish(0.0)
            case _:
                return

    def _head_is_gone(self) -> None:
        if self._line is not None:
            self._line = None
            self._selector.unregister(0)
            self.finish(0.0)

    def _wake_on_signals(self) -> None:
        """SIGTERM is as a drain; SIGCHLD only wakes. The kernel sends SIGTERM when the parent has died: see ``end_with_parent``."""
        parent = os.getppid()
        wake = wake_on(signal.SIGTERM, signal.SIGCHLD)

        def on_signal() -> None:
            if signal.SIGTERM in os.read(wake, 64):
                self.told = os.getppid() == parent
                self.finish(self._grace_s)

        self._selector.register(wake, selectors.EVENT_READ, on_signal)
