"""Allocations as jobs of a batch system, through any of PSI/J's executors that submit job scripts."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import SchedulerSettings
from hpcpanda_edge.batch_system.executors import batch_executor
from hpcpanda_edge.batch_system.job_script import Submission, psij_job, submit
from hpcpanda_edge.ports import AllocationJob, JobState, Submitted

_FIND_BY_NAME: Final = {"slurm": ("squeue", "--me", "--noheader", "--format=%i", "--name={name}")}
"""Commands that list the ids of a user's jobs of one name."""


class BatchScheduler:
    """Allocations are jobs of a batch system."""

    def __init__(self, settings: SchedulerSettings, state: Path, gpus: int = 0) -> None:
        from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutorConfig

        self._name = settings.executor
        self._settings = settings
        self._gpus = gpus
        interval = max(1, round(settings.poll_seconds))
        config = BatchSchedulerExecutorConfig(
            work_directory=state,
            queue_polling_interval=interval,
            initial_queue_polling_delay=min(2, interval),
            queue_polling_error_threshold=1_000_000,
        )
        self._executor: Any = batch_executor(settings.executor, config)
        self._parse: Callable[[int, str], dict[str, Any]] = self._executor.parse_status_output
        self._executor.parse_status_output = self._listen
        self._said: dict[str, Any] = {}
        self._jobs: dict[str, Any] = {}

    def submit(self, job: AllocationJob) -> str:
        """Ask for an allocation; its name in the batch system is its id."""
        native_id, handle = submit(self._executor, job, self._settings, self._gpus)
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
                states[job.allocation_id] = JobState.QUEUED if self._queued(job) else JobState.RUNNING
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

    def submission(self, job: AllocationJob) -> Submission:
        """What :meth:`submit` would give the batch system."""
        handle, script = psij_job(job, self._settings, self._gpus), io.StringIO()
        self._executor.generate_submit_script(handle, self._executor._create_script_context(handle), script)
        command = self._executor.get_submit_command(
            handle, self._executor.work_directory / f"{handle.id}.job"
        )
        asked = (self._executor.get_status_command(["1"]), self._executor.get_cancel_command("1"))
        programs = (command[0], *(words[0] for words in asked))
        return Submission(programs=programs, command=tuple(command), script=script.getvalue())

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

    def _listen(self, exit_code: int, out: str) -> dict[str, Any]:
        """PSI/J looks at the queue: remember what it is told, for its own states only go forward."""
        self._said = self._parse(exit_code, out)
        return self._said

    def _queued(self, job: Submitted) -> bool:
        """Whether a job that ran was preempted and waits again."""
        import psij

        status = self._said.get(job.native_id)
        return status is not None and status.state is psij.JobState.QUEUED

    def _confirmed(self, jobs: Sequence[Submitted]) -> dict[str, JobState]:
        """Ask the batch system itself about jobs that PSI/J takes for ended."""
        try:
            ids = [job.native_id for job in jobs]
            out = self._executor._run_command(self._executor.get_status_command(ids))
            said = self._parse(0, out)
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
