"""One run of a job on a node: what its keeper is told, and what it says of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.splitting import JobSlice
from hpcpanda.events.bundle import JobReport


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRun:
    """A job to be run now, on these cores and GPUs."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    run_id: int
    """Unique in the life of the keeper."""
    task_id: int
    epoch: int
    job: int
    attempt: int
    jobs: int
    """Jobs of the task."""
    seed: int
    """Of the task."""
    payload: JobPayload
    request: JobRequest
    content: JobSlice | None = None
    """What it has to do, of a task that was cut into jobs."""
    container: str | None = None
    processors: tuple[int, ...] = ()
    """Processors that it is bound to; empty: not bound."""
    gpus: tuple[int, ...] = ()
    """Indices of its GPUs on the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnded:
    """A run has ended, and all its processes with it."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    run_id: int
    report: JobReport
    """Its ``error`` is None when the job succeeded and left all its outputs."""
    node_at_fault: bool = False
    """It failed for a reason that is not the job's: the node's disk is full, a program cannot be started for want of
    memory; to be tried elsewhere without counting as an attempt."""
    runner_lost: bool = False
    """The process that kept it has ended: for want of memory on the node, or because the job ended it."""
    folder: Path | None = None
    """Work folder with its outputs, to be removed by :meth:`JobKeeper.forget` when they are recorded."""
    outputs: tuple[str, ...] = ()
    """Names of its outputs in the folder, ``{job}`` filled in."""
