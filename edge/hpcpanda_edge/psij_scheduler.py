"""The batch system through PSI/J: any of its executors, by the name in the site file."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final

import psutil

from hpcpanda.domain.errors import InvalidValue, SchedulerFailed
from hpcpanda.domain.site import SchedulerSettings
from hpcpanda_edge.ports import AllocationJob, JobState, SchedulerPort, Submitted

_FIND_BY_NAME: Final = {"slurm": ("squeue", "--me", "--noheader", "--format=%i", "--name={name}")}
"""Commands that list the ids of a user's jobs of one name."""
_OPTIONS: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "slurm": {
        "name": ("slurm.job-name", "{}"),
        "qos": ("slurm.qos", "{}"),
        "constraint": ("slurm.constraint", "{}"),
        "gpus": ("slurm.gpus-per-node", "{}"),
    },
    "pbs": {"name": ("pbs.N", "{}")},
    "lsf": {"name": ("lsf.J", "{}"), "gpus": ("lsf.gpu", "num={}"), "exclusive": ("lsf.x", "{}")},
}
"""Options for what PSI/J has no word for, or whose template forgets it."""
_QUOTED_TWICE: Final = re.compile(
    r"""(?m)^(#SBATCH --[\w-]+(?==)|#PBS -\w+(?= )|#BSUB -\w+(?= ))([ =])"('.*')"$"""
)
_KILL_ROUNDS: Final = 20


def make_scheduler(settings: SchedulerSettings, state: Path, *, gpus: int = 0) -> SchedulerPort:
    """The adapter for the site's executor. Call it in the main thread: PSI/J sets a signal handler on import.

    Args:
        settings: the executor's name, and how often it looks at the queue.
        state: folder for PSI/J's scripts; compute nodes must see it.
        gpus: GPUs of a node to ask for.

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
    return BatchScheduler(settings, state, gpus)


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
        self._gpus = 0
        self._pids: dict[str, int] = {}

    def submit(self, job: AllocationJob) -> str:
        """Start the processes of an allocation."""
        native_id, _ = _submitted(self._executor, job, self._settings, self._gpus)
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
        self._executor: Any = _batch_executor(settings.executor, config)
        self._parse: Callable[[int, str], dict[str, Any]] = self._executor.parse_status_output
        self._executor.parse_status_output = self._listen
        self._said: dict[str, Any] = {}
        self._jobs: dict[str, Any] = {}

    def submit(self, job: AllocationJob) -> str:
        """Ask for an allocation; its name in the batch system is its id."""
        native_id, handle = _submitted(self._executor, job, self._settings, self._gpus)
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
        handle, script = _handle(job, self._settings, self._gpus), io.StringIO()
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


def _batch_executor(name: str, config: Any) -> Any:  # noqa: ANN401 - PSI/J is not typed
    """PSI/J's executor, made to pass on any option; those for Slurm and LSF are made to read any answer."""
    import psij
    from psij.executors.batch.batch_scheduler_executor import BatchSchedulerExecutor

    executor: Any = psij.JobExecutor.get_instance(name, config=config)
    if not isinstance(executor, BatchSchedulerExecutor):
        raise InvalidValue("scheduler.executor", f"PSI/J's {name} does not submit job scripts")
    generate = executor.generate_submit_script

    def generate_submit_script(job: Any, context: dict[str, object], file: IO[str]) -> None:  # noqa: ANN401
        """PSI/J quotes for the shell inside quotes; batch systems take the inner ones for part of the value."""
        script = io.StringIO()
        generate(job, context, script)
        file.write(_QUOTED_TWICE.sub(_option, script.getvalue()))

    executor.generate_submit_script = generate_submit_script
    if name == "lsf":
        executor.parse_status_output = _without_reasons(executor.parse_status_output)
    if name != "slurm":
        return executor

    def status_command(_: Collection[str]) -> list[str]:
        return ["squeue", "--me", "--states=all", "--Format=JobArrayID:64,StateCompact:16"]

    def parse(exit_code: int, out: str) -> dict[str, Any]:
        """Slurm's reasons are many and may hold blanks; PSI/J gives up at one that it does not know."""
        if exit_code != 0:
            raise SchedulerFailed(f"squeue does not answer: {out.strip()}")
        known = executor._STATE_MAP
        rows = (line.split() for line in out.splitlines()[1:] if line.strip())
        return {row[0]: psij.JobStatus(known.get(row[1], psij.JobState.ACTIVE)) for row in rows}

    executor.get_status_command = status_command
    executor.parse_status_output = parse
    return executor


def _without_reasons(parse: Callable[[int, str], dict[str, Any]]) -> Callable[[int, str], dict[str, Any]]:
    """PSI/J's parser of LSF's answer stumbles over a job that says why it ended; nobody here reads why."""

    def parse_records(exit_code: int, out: str) -> dict[str, Any]:
        if exit_code != 0:
            return parse(exit_code, out)
        answer = json.loads(out)
        for record in answer["RECORDS"]:
            record.update({key: "" for key in record if key.endswith("_REASON")})
        return parse(exit_code, json.dumps(answer))

    return parse_records


def _option(line: re.Match[str]) -> str:
    """An option of a batch system; with an empty value it is one without."""
    name, between, quoted = line.groups()
    value = "".join(shlex.split(quoted)).replace("\\", "\\\\").replace('"', '\\"')
    return f'{name}{between}"{value}"' if value else str(name)


def _submitted(
    executor: Any,  # noqa: ANN401 - PSI/J is not typed
    job: AllocationJob,
    settings: SchedulerSettings,
    gpus: int = 0,
) -> tuple[str, Any]:
    """The native id, and PSI/J's handle."""
    handle = _handle(job, settings, gpus)
    try:
        if settings.setup:
            errors = shlex.quote(str(job.folder / "setup.err"))
            lines = (f"exec 2>>{errors}", *settings.setup)
            setup_file(job).write_text("".join(f"{line}\n" for line in lines))
        executor.submit(handle)
    except Exception as problem:  # PSI/J's executors raise more than they document
        raise SchedulerFailed(f"allocation {job.allocation_id} was not submitted: {problem}") from problem
    return str(handle.native_id), handle


def _handle(job: AllocationJob, settings: SchedulerSettings, gpus: int) -> Any:  # noqa: ANN401 - PSI/J is not typed
    """An allocation in PSI/J's words."""
    import psij

    values = {
        "name": job.allocation_id,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "gpus": str(gpus) if gpus else None,
        "exclusive": "",
    }
    options = {
        key: pattern.replace("{}", value)
        for field, (key, pattern) in _OPTIONS.get(settings.executor, {}).items()
        if (value := values[field]) is not None
    }
    return psij.Job(
        psij.JobSpec(
            name=job.allocation_id,
            executable=settings.python or job.command[0],
            arguments=list(job.command[1:]),
            directory=job.folder,
            stdout_path=job.folder / "head.log",
            stderr_path=job.folder / "head.err",
            pre_launch=setup_file(job) if settings.setup else None,
            resources=psij.ResourceSpecV1(
                node_count=job.nodes,
                processes_per_node=settings.slots_per_node,
                exclusive_node_use=True,
            ),
            attributes=psij.JobAttributes(
                duration=timedelta(seconds=job.walltime_s),
                queue_name=settings.queue,
                account=settings.account,
                reservation_id=settings.reservation,
                custom_attributes=options | settings.options,
            ),
            launcher="single",
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the batch system would be given."""

    programs: tuple[str, ...]
    """Programs of the batch system that are called on the login node."""
    command: tuple[str, ...]
    """How it would be given."""
    script: str
    """The job script; empty where the executor has none."""


def submission(settings: SchedulerSettings, state: Path, job: AllocationJob, *, gpus: int = 0) -> Submission:
    """The job script that an allocation would be submitted with, from PSI/J's own templates; nothing is submitted.

    Call it in the main thread: PSI/J sets a signal handler on import.

    Raises:
        InvalidValue: there is no such executor.
        OSError: the folder for PSI/J's scripts cannot be written to.
    """
    scheduler = make_scheduler(settings, state, gpus=gpus)
    if not isinstance(scheduler, BatchScheduler):
        return Submission(programs=(), command=job.command, script="")
    return scheduler.submission(job)


def setup_file(job: AllocationJob) -> Path:
    """Where the site's set-up lines are, for an allocation to read."""
    return job.folder / "setup.sh"


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
