"""How a task is judged by a pack of it that has ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hpcpanda.allocation.plan import PackStatus
from hpcpanda_edge.merge_work import back_off
from hpcpanda_edge.records import PartRecord, TaskRecord

FRUITLESS_LIMIT: Final = 5
"""Packs that end by themselves in an error, without a finished event between, before the task is reported."""


def after_part(
    task: TaskRecord, part: PartRecord, status: PackStatus | None, released: int, now: float
) -> TaskRecord:
    """Judge a pack by what it has finished of a task: without any progress the next try is put off."""
    if part.accepted or not released:
        return replace(task, fruitless=0, failures=0, not_before=0.0) if part.accepted else task
    error = _error_of(status, task.task_id)
    complaints = "; ".join(status.complaints) if status is not None else ""
    fruitless = task.fruitless + 1
    failed = bool(error) and status is not None and status.ended_by_itself
    failures = task.failures + failed
    fault = task.fault
    if failed and failures >= FRUITLESS_LIMIT:
        fault = fault or f"{failures} packs ended without a finished event; the last said: {error}"
    return replace(
        task,
        fruitless=fruitless,
        failures=failures,
        not_before=now + back_off(fruitless),
        error=error or complaints or task.error,
        fault=fault,
    )


def _error_of(status: PackStatus | None, task_id: int) -> str | None:
    """What a pack complained of: about a task, or as a whole."""
    if status is None:
        return None
    said = status.task(task_id)
    return (said.error if said is not None else None) or status.error
