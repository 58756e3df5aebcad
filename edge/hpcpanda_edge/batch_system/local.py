"""Allocations as processes of this machine, started by PSI/J's local executor."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from hpcpanda.domain.site import SchedulerSettings
from hpcpanda_edge.batch_system.job_script import submit
from hpcpanda_edge.batch_system.processes import is_of, processes_of
from hpcpanda_edge.ports import AllocationJob, JobState, Submitted

_KILL_ROUNDS: Final = 20


class LocalScheduler:
    """Allocations are processes of this machine.

    They are recognised by the allocation's folder among their arguments, so neither a restart of the edge nor a
    process id used again can deceive it.
    """

    def __init__(self, settings: SchedulerSettings, state: Path) -> None:
        import psij

        config = psij.JobExecutorConfig(work_directory=state)
        self._executor: Any = psij.JobExecutor.get_instance("local", config=config)
        self._settings = settings
        self._pids: dict[str, int] = {}

    def submit(self, job: AllocationJob) -> str:
        """Start the processes of an allocation."""
        native_id, _ = submit(self._executor, job, self._settings)
        self._pids[job.allocation_id] = int(native_id)
        return native_id

    def states(self, jobs: Sequence[Submitted]) -> dict[str, JobState]:
        """Whether processes of the allocations are left."""
        states: dict[str, JobState] = {}
        missing: list[Submitted] = []
        for job in jobs:
            if is_of(self._pids.get(job.allocation_id), job.folder):
                states[job.allocation_id] = JobState.RUNNING
            else:
                missing.append(job)
        found = processes_of([job.folder for job in missing])
        for job in missing:
            pids = found[job.folder]
            if pids:
                self._pids[job.allocation_id] = pids[0]
            states[job.allocation_id] = JobState.RUNNING if pids else JobState.GONE
        return states

    def cancel(self, job: Submitted) -> None:
        """Kill the processes of an allocation."""
        for _ in range(_KILL_ROUNDS):  # one that is being killed may just have started another
            pids = processes_of([job.folder])[job.folder]
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def find(self, allocation_id: str, folder: Path) -> str | None:
        """A process of an allocation."""
        pids = processes_of([folder])[folder]
        if not pids:
            return None
        self._pids[allocation_id] = pids[0]
        return str(pids[0])
