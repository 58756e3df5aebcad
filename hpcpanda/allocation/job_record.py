"""A job's outcome as it is journalled: its files as a bundle, or why it failed."""

from __future__ import annotations

import mmap
import os
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np

from hpcpanda.allocation.job_run import JobEnded
from hpcpanda.allocation.node_quarantine import node_name
from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.failures import FailureFacts
from hpcpanda.domain.ledger import ERROR_TEXT_LIMIT, FailedEvent
from hpcpanda.events.bundle import JobReport, bundle
from hpcpanda.events.columns import BYTES, Buffer
from hpcpanda.events.journal import ENTRY, FailedInEpoch
from hpcpanda.events.recorder import Recorder

_SMALL: Final = 1 << 20
"""Files up to so many bytes are read; larger ones are mapped, so that they never are in memory as a whole."""


class JobJournals:
    """The journals of a node's jobs, one a task, begun when first there is something to write.

    Every method raises OSError when the spool folder refuses writing.
    """

    def __init__(self, open_recorder: Callable[[int], Recorder]) -> None:
        self._open = open_recorder
        self._recorders: dict[int, Recorder] = {}

    @property
    def error(self) -> OSError | None:
        """Why one of them has ended."""
        return next((r.error for r in self._recorders.values() if r.error is not None), None)

    def record(self, task_id: int, ended: JobEnded, *, epoch: int, slots: tuple[int, ...]) -> None:
        """Journal a job that succeeded; see :func:`record_job`."""
        recorder, slot, cores = self._of(task_id), slots[0], len(slots)
        record_job(recorder, ended.report, ended.folder, ended.outputs, epoch=epoch, slot=slot, cores=cores)

    def set_aside(self, task_id: int, epoch: int, event: FailedEvent) -> None:
        """Journal a job as failed for good."""
        self._of(task_id).set_aside(FailedInEpoch(epoch=epoch, events=(event,)))

    def close(self, task_id: int) -> None:
        """Make durable what there is of a task, and end its journal."""
        if (recorder := self._recorders.pop(task_id, None)) is not None:
            recorder.close()

    def close_all(self) -> None:
        """The same for all tasks; the first error is raised when all are closed."""
        first: OSError | None = None
        for task_id in list(self._recorders):
            try:
                self.close(task_id)
            except OSError as problem:
                first = first or problem
        if first is not None:
            raise first

    def _of(self, task_id: int) -> Recorder:
        if task_id not in self._recorders:
            self._recorders[task_id] = self._open(task_id)
        return self._recorders[task_id]


def record_job(
    recorder: Recorder,
    report: JobReport,
    folder: Path | None,
    outputs: Iterable[str],
    *,
    epoch: int,
    slot: int,
    cores: int,
) -> None:
    """Journal a job that succeeded.

    Args:
        recorder: of the job's task.
        report: of the run that counts.
        folder: its work folder; None when it has left nothing.
        outputs: names of the files in it that are kept.
        epoch: of the lease.
        slot: first of the cores that it held.
        cores: their number.

    Raises:
        PayloadFailed: an output cannot be read any more.
        OSError: the spool folder refuses writing.
    """
    files = [] if folder is None else list(_read(folder, outputs))
    data = bundle(report, files)
    crc = 0
    for part in data:
        crc = zlib.crc32(part, crc)
    entry = np.zeros(1, dtype=ENTRY)
    entry["epoch"] = epoch
    entry["slot"], entry["cores"] = slot, cores
    entry["first"], entry["last"] = report.job, report.job + 1
    entry["length"] = sum(map(len, data))
    entry["crc"] = crc
    entry["cpu_s"] = report.cpu_s
    entry["start"] = report.started
    entry["wall_s"] = report.wall_s
    recorder.fix_schema(BYTES)
    recorder.record(entry, data)


def failure_text(report: JobReport) -> str:
    """Why a job failed, with the end of what it said on stderr, or on stdout if it said nothing there; at most
    ``ERROR_TEXT_LIMIT`` characters."""
    text = (report.error or "no reason is known")[:ERROR_TEXT_LIMIT]
    stream, tail = "stderr", report.stderr_tail.strip()
    if not tail:
        stream, tail = "stdout", report.stdout_tail.strip()
    joint = f"; {stream} ends with: "
    room = ERROR_TEXT_LIMIT - len(text) - len(joint)
    return text + joint + tail[-room:] if tail and room > 0 else text


def failure_facts(report: JobReport) -> FailureFacts:
    """What is known of a job that has failed on this node, besides its text."""
    return FailureFacts(exit_status=report.exit_status, signal=report.signal, node=node_name())


def _read(folder: Path, names: Iterable[str]) -> Iterable[tuple[str, Buffer]]:
    for name in names:
        try:
            yield name, _content(folder / name)
        except (OSError, ValueError) as problem:
            raise PayloadFailed(f"output {name!r} cannot be read: {problem}") from problem


def _content(path: Path) -> Buffer:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is not a regular file")
        if found.st_size > _SMALL:
            return memoryview(mmap.mmap(fd, found.st_size, access=mmap.ACCESS_READ))
        content = os.read(fd, _SMALL)
        if len(content) != found.st_size:
            raise ValueError("it changes although the job has ended")
        return content
    finally:
        os.close(fd)
