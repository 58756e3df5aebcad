"""The reports of a task's jobs, a line of JSON each, in a file beside the merged archive."""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Final

from pydantic import TypeAdapter

from hpcpanda.events.bundle import JobReport
from hpcpanda.merge.plan import Plan

_REPORT: Final = TypeAdapter(JobReport)
_STEP: Final = 1 << 20
_UNKNOWN: Final = "failed for good; the journals of the finished jobs do not say why"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportsRecord:
    """The file of reports, as the manifest names it."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    file: str
    size: int
    sha256: str


def reports_path(output: Path) -> Path:
    """Where the reports of an archive of jobs are."""
    return output.with_name(f"{output.name}.jobs.jsonl")


def write_reports(path: Path, finished: Iterable[JobReport], plan: Plan, output: Path) -> ReportsRecord:
    """Write the reports of finished and failed jobs in job order to a new file, and bring it to the disk.

    Args:
        path: of the new file.
        finished: reports of the finished jobs, in job order.
        plan: tells the failed jobs.
        output: the archive that the reports will stand beside.
    """
    done = ((report.job, _REPORT.dump_json(report)) for report in finished)
    state, size = hashlib.sha256(), 0
    with path.open("xb", buffering=_STEP) as file:
        for _, text in heapq.merge(done, _failed(plan)):
            line = text + b"\n"
            file.write(line)
            state.update(line)
            size += len(line)
        file.flush()
        os.fsync(file.fileno())
    return ReportsRecord(file=reports_path(output).name, size=size, sha256=state.hexdigest())


def reports_stand(output: Path, record: ReportsRecord) -> bool:
    """Whether the file of reports is there as recorded. Raises OSError when it cannot be read."""
    path = reports_path(output)
    if not path.is_file() or path.stat().st_size != record.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == record.sha256


def _failed(plan: Plan) -> Iterator[tuple[int, bytes]]:
    """Lines of the jobs that failed for good, with the fields of the others."""
    nothing: dict[str, object] = {field.name: None for field in dataclasses.fields(JobReport)}
    for jobs in plan.failed.ranges():
        for job in range(jobs.first, jobs.last):
            known = plan.failures.get(job)
            facts = {"error": known.error, "attempt": known.attempts} if known else {"error": _UNKNOWN}
            yield job, json.dumps(nothing | facts | {"job": job}, separators=(",", ":")).encode()
