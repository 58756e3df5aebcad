"""An allocation in PSI/J's words, and what becomes of it: a job script with the site's options and set-up lines."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import SchedulerSettings
from hpcpanda_edge.ports import AllocationJob

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What the batch system would be given."""

    programs: tuple[str, ...]
    """Programs of the batch system that are called on the login node."""
    command: tuple[str, ...]
    """How it would be given."""
    script: str
    """The job script; empty where the executor has none."""


def submit(
    executor: Any,  # noqa: ANN401 - PSI/J is not typed
    job: AllocationJob,
    settings: SchedulerSettings,
    gpus: int = 0,
) -> tuple[str, Any]:
    """Hand an allocation to PSI/J; gives the native id, and PSI/J's handle.

    Raises:
        SchedulerFailed: refused, or the answer was lost: it may have been accepted all the same.
    """
    handle = psij_job(job, settings, gpus)
    try:
        if settings.setup:
            errors = shlex.quote(str(job.folder / "setup.err"))
            lines = (f"exec 2>>{errors}", *settings.setup)
            setup_file(job).write_text("".join(f"{line}\n" for line in lines))
        executor.submit(handle)
    except Exception as problem:  # PSI/J's executors raise more than they document
        raise SchedulerFailed(f"allocation {job.allocation_id} was not submitted: {problem}") from problem
    return str(handle.native_id), handle


def psij_job(job: AllocationJob, settings: SchedulerSettings, gpus: int) -> Any:  # noqa: ANN401 - PSI/J is not typed
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
                custom_attributes=options | settings.options | _without(job, settings),
            ),
            launcher="single",
        )
    )


def _without(job: AllocationJob, settings: SchedulerSettings) -> dict[str, str]:
    """Nodes that are not wanted, for a batch system that can be told so."""
    if settings.executor != "slurm" or not job.avoid:
        return {}
    said = settings.options.get("slurm.exclude")
    return {"slurm.exclude": ",".join((*([said] if said else []), *job.avoid))}


def setup_file(job: AllocationJob) -> Path:
    """Where the site's set-up lines are, for an allocation to read."""
    return job.folder / "setup.sh"
