"""The batch system through PSI/J: any of its executors, by the name in the site file."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psutil

from hpcpanda.domain.errors import InvalidValue, SchedulerFailed
from hpcpanda.domain.site import SchedulerSettings
from hpcpanda_edge.ports import AllocationJob, JobState, SchedulerPort, Submitted

_FIND_BY_NAME: Final = {"slurm": ("squeue", "--me", "--noheader", "--format=%i", "--name={name}")}
"""Commands that list the ids of a user's jobs of one name."""
_KILL_ROUNDS: Final = 20


def make_scheduler(settings: SchedulerSettings, state: Path) -> SchedulerPort:
    """The adapter for the site's executor. Call it in the main thread: PSI/J sets a signal handler on import.

    Args:
        settings: the executor's name, and how often it looks at the queue.
        state: folder for PSI/J's scripts; compute nodes must see it.

    Raises:
        InvalidValue: there is no such executor.
    """
    assert threading.current_thread() is threading.main_thread()
    import psij

    logging.getLogger("psij").setLevel(logging.CRITICAL)
    known = psij.JobExecutor.get_executor_names()
    if settings.executor not in known:
        names = ", ".join(sorted(known))
        raise InvalidValue("scheduler.executor", f"PSI/J has no executor {settings.executor!r}, only {names}")
    if settings.executor == "local":
        return LocalScheduler(settings, state)
    return BatchScheduler(settings, state)


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
        native_id, _ = _submitted(self._executor, job, self._settings)
        self._pids[job.allocation_id] = int(native_id)
        return native_id

    def states(self, jobs: Sequence[Submitted]) -> dict[str, JobState]:
        """Whether processes of the allocations are left."""
        states: dict[str, JobState] = {}
        missing: list[Submitted] = []
        for job in jobs:
            if _is_of(self._pids.get(job.allocation_id), job.folder):
                states[job.allocation_id] = JobState.RUNNING
            else:
                missing.append(job)
        found = _processes([job.folder for job in missing])
        for job in missing:
            pids = found[job.folder]
            if pids:
                self._pids[job.allocation_id] = pids[0]
            states[job.allocation_id] = JobState.RUNNING if pids else JobState.GONE
        return states

    def cancel(self, job: Submitted) -> None:
        """Kill the processes of an allocation."""
        for _ in range(_KILL_ROUNDS):  # one that is being killed may just have started another
            pids = _processes([job.folder])[job.folder]
            if not pids:
                return
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def find(self, allocation_id: str, folder: Path) -> str | None:
        """A process of an allocation."""
        pids = _processes([folder])[folder]
        if not pids:
            return None
        self._pids[allocation_id] = pids[0]
        return str(pids[0])


class BatchScheduler:
    """Allocations are jobs of a batch system."""

    def __init__(self, settings: SchedulerSettings, state: Path) -> None:
        import psij
        from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutorConfig

        self._name = settings.executor
        self._settings = settings
        interval = max(1, round(settings.poll_seconds))
        config = BatchSchedulerExecutorConfig(
            work_directory=state,
            queue_polling_interval=interval,
            initial_queue_polling_delay=min(2, interval),
            queue_polling_error_threshold=1_000_000,
        )
        self._executor: Any = psij.JobExecutor.get_instance(settings.executor, config=config)
        self._jobs: dict[str, Any] = {}

    def submit(self, job: AllocationJob) -> str:
        """Ask for an allocation; its name in the batch system is its id."""
        native_id, handle = _submitted(self._executor, job, self._settings)
        self._jobs[native_id] = handle
        return native_id

    def states(self, jobs: Sequence[Submitted]) -> dict[str, JobState]:
        """States as PSI/J last saw them; that a job has gone is asked for again before it is believed."""
        import psij

        states: dict[str, JobState] = {}
        ended: list[Submitted] = []
        for job in jobs:
            handle = self._jobs.get(job.native_id)
            if handle is None:
                handle = self._jobs[job.native_id] = psij.Job()
                self._executor.attach(handle, job.native_id)
            state = handle.status.state
            if state.final:
                ended.append(job)
            elif state is psij.JobState.ACTIVE:
                states[job.allocation_id] = JobState.RUNNING
            elif state is psij.JobState.QUEUED:
                states[job.allocation_id] = JobState.QUEUED
        if ended:
            states |= self._confirmed(ended)
        return states

    def cancel(self, job: Submitted) -> None:
        """Take a job out of the queue, or end it."""
        try:
            self._executor._run_command(self._executor.get_cancel_command(job.native_id))
        except (subprocess.SubprocessError, OSError) as problem:
            raise SchedulerFailed(f"{self._name} did not cancel {job.native_id}: {problem}") from problem

    def find(self, allocation_id: str, folder: Path) -> str | None:  # noqa: ARG002 - part of the port
        """The job of that name, where the batch system can be asked for it."""
        command = _FIND_BY_NAME.get(self._name)
        if command is None:
            return None
        words = [word.replace("{name}", allocation_id) for word in command]
        try:
            found = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        except (subprocess.SubprocessError, OSError) as problem:
            raise SchedulerFailed(f"{words[0]} does not answer: {problem}") from problem
        return next(iter(found.stdout.split()), None)

    def _confirmed(self, jobs: Sequence[Submitted]) -> dict[str, JobState]:
        """Ask the batch system itself about jobs that PSI/J takes for ended."""
        try:
            ids = [job.native_id for job in jobs]
            out = self._executor._run_command(self._executor.get_status_command(ids))
            said = self._executor.parse_status_output(0, out)
        except Exception as problem:  # PSI/J's parsers raise anything
            raise SchedulerFailed(f"{self._name} does not tell the state of jobs: {problem}") from problem
        states: dict[str, JobState] = {}
        for job in jobs:
            status = said.get(job.native_id)
            if status is None or status.state.final:
                states[job.allocation_id] = JobState.GONE
            else:
                del self._jobs[job.native_id]  # PSI/J was wrong, or the job was queued again: attach anew
        return states


def _submitted(
    executor: Any,  # noqa: ANN401 - PSI/J is not typed
    job: AllocationJob,
    settings: SchedulerSettings,
) -> tuple[str, Any]:
    """The native id, and PSI/J's handle."""
    import psij

    names = {"slurm.job-name": job.allocation_id} if settings.executor == "slurm" else {}
    handle = psij.Job(
        psij.JobSpec(
            name=job.allocation_id,
            executable=job.command[0],
            arguments=list(job.command[1:]),
            directory=job.folder,
            stdout_path=job.folder / "head.log",
            stderr_path=job.folder / "head.err",
            resources=psij.ResourceSpecV1(
                node_count=job.nodes, processes_per_node=1, exclusive_node_use=True
            ),
            attributes=psij.JobAttributes(
                duration=timedelta(seconds=job.walltime_s),
                queue_name=settings.queue,
                account=settings.account,
                custom_attributes=names | settings.options,
            ),
            launcher="single",
        )
    )
    try:
        executor.submit(handle)
    except Exception as problem:  # PSI/J's executors raise more than they document
        raise SchedulerFailed(f"allocation {job.allocation_id} was not submitted: {problem}") from problem
    return str(handle.native_id), handle


def _is_of(pid: int | None, folder: Path) -> bool:
    """Whether a process belongs to the allocation with this folder."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and _names(process.cmdline(), folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _names(command: Sequence[str], folder: Path) -> bool:
    own, packs = str(folder), f"{folder}/packs/"
    return any(word == own or word.startswith(packs) for word in command)


def _processes(folders: Sequence[Path]) -> dict[Path, list[int]]:
    """Living processes of this user, by the allocation folder among their arguments."""
    found: dict[Path, list[int]] = {folder: [] for folder in folders}
    if not folders:
        return found
    me = os.getuid()
    for process in psutil.process_iter():
        try:
            if process.uids().real != me or process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        for folder in folders:
            if _names(command, folder):
                found[folder].append(process.pid)
    return found
