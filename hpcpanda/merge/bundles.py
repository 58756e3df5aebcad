"""Find the files in the bundles of finished jobs, and check every bundle whole.

The merge of jobs reads segments twice: here, for the heads and the CRC-32 of each file, and when the files are copied.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from hpcpanda.domain.errors import CorruptData, InvalidValue, MergeFailed
from hpcpanda.events.bundle import LEAD_BYTES, BundleHead, JobReport, check_head, head_length, read_head
from hpcpanda.merge import reading
from hpcpanda.merge.plan import Numbers, Plan, Ranges
from hpcpanda.merge.reading import Desk, Done, Reader

_LONGEST_NAME: Final = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOutputs:
    """What the jobs of a task leave: ``TaskSpec.jobs`` and ``JobPayload.outputs``."""

    jobs: int
    """Jobs of the task, finished or not."""
    outputs: tuple[str, ...]
    """Files that each job leaves, in this order; ``{job}`` is filled in."""

    def names(self, job: int) -> list[str]:
        """The files of one job."""
        return [name.replace("{job}", str(job)) for name in self.outputs]

    def member_names(self, job: int) -> list[bytes]:
        """Their names in the archive, UTF-8.

        Raises:
            InvalidValue: a name is too long.
        """
        folder = f"{job:0{len(str(self.jobs - 1))}}"
        names = [f"{folder}/{name}".encode() for name in self.names(job)]
        if any(len(name) > _LONGEST_NAME for name in names):
            raise InvalidValue("payload.outputs", f"a name is longer than {_LONGEST_NAME} bytes")
        return names


@dataclass(frozen=True, slots=True)
class Bundles:
    """Some bundles that have been read whole and are right, in job order."""

    reports: list[JobReport]
    files: Numbers
    """Offset in the segment, length and CRC-32; by job, and by output as declared."""


class Surveyor:
    """Reads all bundles of a plan."""

    def __init__(self, plan: Plan, outputs: JobOutputs) -> None:
        self._plan = plan
        self._outputs = outputs
        self._reader = Reader(plan)

    def survey(self, pool: ThreadPoolExecutor, threads: int, done: Done) -> Iterator[Bundles]:
        """All bundles, window by window. ``done`` is told the bytes read so far.

        Raises:
            CorruptData: a bundle fails its checksum, or its head does not fit it.
            MergeFailed: a job left other files than those declared, or an entry is not one job of the task.
        """
        ranges = self._plan.ranges
        wrong = np.flatnonzero((ranges.last - ranges.first != 1) | (ranges.last > self._outputs.jobs))
        if len(wrong):
            place = self._plan.place(int(wrong[0]))
            raise MergeFailed(f"not one of the task's {self._outputs.jobs} jobs: {place}; nothing was merged")
        ends = np.cumsum(ranges.length)
        for b, bundles in self._reader.each_window(self._window, pool, threads):
            yield bundles
            done(int(ends[b - 1]))

    def _window(self, desk: Desk, a: int, b: int) -> Bundles:
        if reading.is_large(int(self._plan.ranges.length[a])):
            return self._large(desk, a)
        data, begins = self._reader.read(desk, a, b)
        reports: list[JobReport] = []
        files: list[list[tuple[int, int, int]]] = []
        for row, begin in zip(range(a, b), begins.tolist(), strict=True):
            own = data[begin : begin + int(self._plan.ranges.length[row])]
            head, body = self._open(row, lambda i, j, own=own: own[i:j])  # type: ignore[misc]
            found = {}
            source, at = int(self._plan.ranges.offset[row]), body
            for file in head.files:
                found[file.name] = (source + at, file.size, zlib.crc32(own[at : at + file.size]))
                at += file.size
            reports.append(head.report)
            files.append(self._as_declared(row, found))
        return self._bundles(reports, files)

    def _large(self, desk: Desk, row: int) -> Bundles:
        """One bundle too large to be held."""
        source = int(self._plan.ranges.offset[row])

        def fetch(i: int, j: int) -> memoryview:
            part = desk.room(j - i)
            self._reader.fill(desk, [row], source + i, part)
            return part

        head, body = self._open(row, fetch)
        whole, at = zlib.crc32(fetch(0, body)), body
        found = {}
        for file in head.files:
            crc = 0
            for moved in range(0, file.size, reading.STEP):
                part = fetch(at + moved, at + min(file.size, moved + reading.STEP))
                crc, whole = zlib.crc32(part, crc), zlib.crc32(part, whole)
            found[file.name] = (source + at, file.size, crc)
            at += file.size
        if whole != int(self._plan.ranges.crc[row]):
            raise self._reader.bad_checksum(row)
        return self._bundles([head.report], [self._as_declared(row, found)])

    def _open(self, row: int, fetch: Callable[[int, int], memoryview]) -> tuple[BundleHead, int]:
        """Head of a bundle, and where its files begin in it; ``fetch`` gives a stretch of its bytes."""
        job, length = int(self._plan.ranges.first[row]), int(self._plan.ranges.length[row])
        try:
            body = _body(bytes(fetch(0, min(LEAD_BYTES, length))), length)
            head = read_head(bytes(fetch(LEAD_BYTES, body)))
            check_head(head, job=job, size=length - body)
        except CorruptData as problem:
            raise CorruptData(f"{problem} ({self._plan.place(row)}); nothing was merged") from problem
        if head.report.error is not None:
            raise MergeFailed(
                f"job {job} is accepted as done, but its report says {head.report.error!r} "
                f"({self._plan.place(row)}); nothing was merged"
            )
        return head, body

    def _as_declared(self, row: int, found: dict[str, tuple[int, int, int]]) -> list[tuple[int, int, int]]:
        job = int(self._plan.ranges.first[row])
        names = self._outputs.names(job)
        if found.keys() == set(names) and len(names) == len(found):
            return [found[name] for name in names]
        if missing := [name for name in names if name not in found]:
            problem = f"lacks {missing[0]!r}, which the task declares as an output"
        elif strange := [name for name in found if name not in names]:
            problem = f"has a file {strange[0][:200]!r}, which the task does not declare as an output"
        else:
            problem = f"has one file for two outputs of the same name among {names[:5]}"
        raise MergeFailed(f"the bundle of job {job} {problem} ({self._plan.place(row)}); nothing was merged")

    def _bundles(self, reports: list[JobReport], files: list[list[tuple[int, int, int]]]) -> Bundles:
        table = np.array(files, dtype=np.int64).reshape(len(files), len(self._outputs.outputs), 3)
        return Bundles(reports, table)


def _body(lead: bytes, length: int) -> int:
    """Where the files begin in a bundle of that length."""
    body = LEAD_BYTES + head_length(lead)
    if body > length:
        raise CorruptData(f"the head of a bundle of {length} bytes claims to end at byte {body}")
    return body


def plan_files(plan: Plan, files: Numbers) -> Plan:
    """What has to be copied: a range a file, with the job's number as its event.

    Args:
        plan: of the bundles.
        files: as in :class:`Bundles`, of all jobs of the plan.
    """
    count = files.shape[1]
    ranges = plan.ranges
    offset, length, crc = (files[:, :, k].reshape(-1) for k in range(3))
    return replace(
        plan,
        ranges=Ranges(
            first=np.repeat(ranges.first, count),
            last=np.repeat(ranges.last, count),
            segment=np.repeat(ranges.segment, count),
            offset=offset,
            length=length,
            crc=crc,
            source=np.repeat(ranges.source, count),
        ),
    )
