"""The adapter for a site's batch system, by the name of PSI/J's executor in the site file."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import SchedulerSettings
from hpcpanda_edge.batch_system.job_script import Submission
from hpcpanda_edge.batch_system.jobs import BatchScheduler
from hpcpanda_edge.batch_system.local import LocalScheduler
from hpcpanda_edge.ports import AllocationJob, SchedulerPort


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
    on_child = signal.getsignal(signal.SIGCHLD)
    import psij

    logging.getLogger("psij").setLevel(logging.CRITICAL)
    known = psij.JobExecutor.get_executor_names()
    if settings.executor not in known:
        names = ", ".join(sorted(known))
        raise InvalidValue("scheduler.executor", f"PSI/J has no executor {settings.executor!r}, only {names}")
    if settings.executor == "local":
        return LocalScheduler(settings, state)
    scheduler = BatchScheduler(settings, state, gpus)
    signal.signal(
        signal.SIGCHLD, on_child or signal.SIG_DFL
    )  # else PSI/J's local executor looks for its children ten times a second
    return scheduler


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
