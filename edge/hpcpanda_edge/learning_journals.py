"""What the edge learns from journals: the cost of events, walltime and memory of jobs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

import numpy as np

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.task import TaskSpec
from hpcpanda.events.bundle import LEAD_BYTES, JobReport, head_length, read_head
from hpcpanda.events.journal import Entries, FailedInEpoch, segment_path
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda.prediction.tasks import JobEnd, TaskWords
from hpcpanda_edge.files import Collected, ReadJournal
from hpcpanda_edge.store import Store

REPORTS: Final = 4
"""Reports of jobs read for their memory in one look at the journals."""
REPORTS_A_TASK: Final = 400
"""Once so many jobs of a task have ended, no more reports of it are read."""
_MAX_HEAD: Final = 2**20


class JournalLessons:
    """Learns from what journals newly say."""

    def __init__(self, knowledge: Knowledge, store: Store, spool: Spool) -> None:
        self._knowledge = knowledge
        self._store = store
        self._spool = spool

    def saw(self, found: Collected, now: float) -> bool:
        """Enter what they say; gives whether there was something to learn."""
        learnt = False
        for read in found.journals:
            task = self._store.tasks.get(read.record.task_id)
            if task is not None and (len(read.part.entries) or read.part.failed):
                self._meet(task.task_id, task.spec, now)
                self._saw_entries(task.task_id, task.spec, read.part.entries, now)
                self._saw_failed(task.task_id, task.spec, read.part.failed, now)
                learnt = True
        return learnt

    def _meet(self, task_id: int, spec: TaskSpec, now: float) -> None:
        job = spec.job_request
        words = TaskWords(
            walltime_s=None if job is None else job.walltime_s,
            memory_mb=None if job is None else job.memory_mb,
            event_seconds=spec.resources.event_seconds,
        )
        known = self._knowledge.tasks.get(task_id)
        if known is None or known.words != words:
            self._knowledge.meet(task_id, words, now)

    def _saw_entries(self, task_id: int, spec: TaskSpec, entries: Entries, now: float) -> None:
        counts = entries["last"].astype(np.float64) - entries["first"].astype(np.float64)
        wall = entries["wall_s"].astype(np.float64)
        good = (counts >= 1) & np.isfinite(wall) & (wall > 0)
        counts, wall = counts[good], wall[good]
        cores = np.maximum(entries["cores"][good].astype(np.float64), 1.0)
        self._knowledge.saw_events(task_id, counts, wall * cores, now)
        if spec.jobs is not None:
            self._knowledge.saw_jobs(task_id, wall, now)

    def _saw_failed(self, task_id: int, spec: TaskSpec, failed: Iterable[FailedInEpoch], now: float) -> None:
        """Jobs that were killed at a limit, in the words of :mod:`hpcpanda.allocation.job_limits`."""
        job = spec.job_request
        if job is None:
            return
        for event in (event for aside in failed for event in aside.events):
            if "(job.walltime_s)" in event.error:
                self._knowledge.saw_jobs(task_id, [job.walltime_s], now, JobEnd.LIMIT)
            elif "(job.memory_mb)" in event.error:
                self._knowledge.saw_memory(task_id, job.memory_mb, now, JobEnd.LIMIT)

    def reports_of(self, found: Collected) -> list[tuple[int, JobReport]]:
        """The reports of a few of the jobs that journals newly tell of, each with its task. Reads files: call it in a
        thread."""
        reports: list[tuple[int, JobReport]] = []
        for read in found.journals:
            task = self._store.tasks.get(read.record.task_id)
            known = self._knowledge.tasks.get(read.record.task_id)
            enough = known is not None and known.ends.get(JobEnd.ENDED, 0) > REPORTS_A_TASK
            if task is None or task.spec.jobs is None or enough:
                continue
            looked = read.part.entries[: REPORTS - len(reports)]
            told = (read_report(self._spool, read, entry) for entry in looked)
            reports += [(task.task_id, report) for report in told if report is not None]
        return reports

    def saw_reports(self, reports: Iterable[tuple[int, JobReport]], now: float) -> None:
        """Learn how much memory jobs used; 0 means that it was too little to be told."""
        for task_id, report in reports:
            if 0 < report.max_rss_mb < 1e9:
                self._knowledge.saw_memory(task_id, report.max_rss_mb, now)


def read_report(spool: Spool, read: ReadJournal, entry: np.void) -> JobReport | None:
    """The report at the begin of a job's bundle; None when it cannot be read, which costs nothing but a sample."""
    journal = spool.events(read.record.task_id) / read.record.name
    try:
        with segment_path(journal, int(entry["segment"])).open("rb", buffering=0) as segment:
            offset = int(entry["offset"])
            length = head_length(os.pread(segment.fileno(), LEAD_BYTES, offset))
            if length > _MAX_HEAD:
                return None
            return read_head(os.pread(segment.fileno(), length, offset + LEAD_BYTES)).report
    except (OSError, OverflowError, CorruptData):
        return None
