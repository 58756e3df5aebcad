"""What a node has to tell the job queue, gathered until the next report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hpcpanda.allocation.job_messages import FailedRun, JobLoad, JobsReport


@dataclass(slots=True)
class JobNews:
    """The parts of a :class:`JobsReport` so far."""

    done: list[tuple[int, float]] = field(default_factory=list)
    failed: list[FailedRun] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    stale: list[int] = field(default_factory=list)
    late: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.done or self.failed or self.back or self.stale or self.late)

    def report(self, *, loads: Iterable[JobLoad] | None, stopped: bool) -> JobsReport:
        """All of it as a message; begins anew."""
        report = JobsReport(
            done=tuple(self.done),
            failed=tuple(self.failed),
            back=tuple(self.back),
            stale=tuple(self.stale),
            late=tuple(self.late),
            loads=None if loads is None else tuple(loads),
            stopped=stopped,
        )
        for part in (self.done, self.failed, self.back, self.stale, self.late):
            part.clear()
        return report
