"""A job's command, environment and file names with its placeholders filled in, and its inputs in its work folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.payload.forms.child import fill


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWords:
    """What one job is started with."""

    command: tuple[str, ...]
    environment: dict[str, str]
    """Only the payload's own variables."""
    inputs: tuple[Path, ...]
    outputs: tuple[str, ...]
    """Names inside the work folder."""


def job_words(
    payload: JobPayload, request: JobRequest, *, job: int, jobs: int, seed: int, cores: int
) -> JobWords:
    """The words of one job.

    Args:
        payload: the task's.
        request: the task's.
        job: number of the job.
        jobs: number of jobs of the task.
        seed: of the job.
        cores: cores that the job has, on all its nodes together.
    """
    of_files = {"job": str(job)}
    values = of_files | {
        "jobs": str(jobs),
        "seed": str(seed),
        "cores": str(cores),
        "gpus": str(request.gpus),
        "memory_mb": str(request.memory_mb),
    }
    return JobWords(
        command=tuple(fill(word, values) for word in payload.command),
        environment={name: fill(value, values) for name, value in payload.environment.items()},
        inputs=tuple(Path(fill(path, of_files)) for path in payload.inputs),
        outputs=tuple(fill(name, of_files) for name in payload.outputs),
    )


def link_inputs(inputs: tuple[Path, ...], folder: Path) -> None:
    """Link input files into a work folder under their own names.

    Raises:
        PayloadFailed: one is not there, or two have the same name.
        OSError: the folder cannot be written.
    """
    for path in inputs:
        if not path.exists():
            raise PayloadFailed(f"payload.inputs: there is no file {path}")
        try:
            (folder / path.name).symlink_to(path)
        except FileExistsError:
            raise PayloadFailed(f"payload.inputs: two files are called {path.name!r}") from None
