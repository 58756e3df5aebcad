"""What the scouts of tasks have used, from the reports in their bundles: for the dispatcher, which learns from them."""

from __future__ import annotations

from collections.abc import Iterator

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.scouting import JobMeasure
from hpcpanda_edge.files import Collected, ReadJournal
from hpcpanda_edge.learning_journals import read_report
from hpcpanda_edge.store import Store

_MIB = 1 << 20

Measures = dict[tuple[int, int], JobMeasure]
"""By task and job."""


def measures_of(spool: Spool, store: Store, found: Collected) -> Measures:
    """What the scouts have used of which journals newly tell. Reads files, as many as there are scouts: call it in a
    thread."""
    return {
        (read.record.task_id, measure.job): measure
        for read in found.journals
        for measure in _of_journal(spool, store, read)
    }


def _of_journal(spool: Spool, store: Store, read: ReadJournal) -> Iterator[JobMeasure]:
    task = store.tasks.get(read.record.task_id)
    if task is None or task.spec.jobs is None or not task.spec.scouts:
        return
    entries = read.part.entries
    for entry in entries[entries["first"] < task.spec.scouts]:
        report = read_report(spool, read, entry)
        if report is not None:
            yield JobMeasure(
                job=int(entry["first"]),
                wall_s=min(max(0.0, report.wall_s), 1e8),
                max_rss_mb=_bounded(report.max_rss_mb),
                disk_mb=_bounded(report.disk_mb),
                output_mb=_bounded(int(entry["length"]) / _MIB),
            )


def _bounded(value: float) -> float:
    return min(value, 1e12) if value > 0 else 0.0
