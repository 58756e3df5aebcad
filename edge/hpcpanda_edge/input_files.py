"""The files of datasets that a task's events here are in: kept with the task, and listed for its workers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpcpanda.allocation.spool import Spool, write_message
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.listing import LISTING


def reads_dataset(spec: TaskSpec) -> bool:
    """Whether the files of a task are told with its events; those of jobs are told with each job."""
    of_dataset = spec.inputs is not None and spec.inputs.dataset is not None
    return of_dataset and not isinstance(spec.payload, JobPayload)


def with_files_of(known: TaskSpec | None, told: TaskSpec, needed: IntervalSet) -> TaskSpec:
    """What is told of a task now, with the files that were told before and those told now, as far as they are needed.

    Args:
        known: as it was told before.
        told: as it was told with a new lease.
        needed: all events of the task that are here and not finished.
    """
    assert told.inputs is not None, "it reads a dataset"
    before = known.inputs if known is not None else None
    files = dict(zip(before.starts, before.files, strict=True)) if before is not None else {}
    files |= zip(told.inputs.starts, told.inputs.files, strict=True)
    kept = tuple(
        replace(file, first=start)
        for start, file in sorted(files.items())
        if needed.overlaps(start, start + file.events)
    )
    return replace(told, inputs=replace(told.inputs, files=kept))


def listing(spool: Spool, task_id: int) -> Path:
    """Where the files of a task's events are listed: beside its journals, with which it goes."""
    return spool.events(task_id) / "files.json"


def write_listing(spec: TaskSpec) -> None:
    """List the files of a task for those who run it: before they are handed events of them.

    Raises:
        OSError: it cannot be written.
    """
    if spec.inputs is None or spec.inputs.listing is None:
        return
    path = Path(spec.inputs.listing)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_message(path, LISTING, spec.inputs.files)
