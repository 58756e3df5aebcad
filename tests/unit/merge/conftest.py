"""Journals and segments made without agents, for tests of the merge."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.bundle import JobReport, bundle
from hpcpanda.events.columns import BYTES, Items, encode
from hpcpanda.events.journal import (
    ENTRY,
    FailedInEpoch,
    FrameKind,
    JournalHeader,
    done_frame,
    frame,
    header_frame,
    schema_frame,
    segment_path,
)
from hpcpanda.events.recorder import Recorder
from hpcpanda.merge import Source

Payload = Callable[[int, int], object]
Files = Sequence[tuple[str, bytes]]
OUTPUTS = ("hist.bin", "job-{job}.txt", "folder/größe.log")
"""What :func:`job_files` leaves."""


def job_files(job: int) -> Files:
    """The files of a job; some are empty, some larger than a page."""
    rng = random.Random(job)
    return [
        ("hist.bin", rng.randbytes(job % 3 * 2000)),
        (f"job-{job}.txt", b"job %d\n" % job),
        ("folder/größe.log", b"x" * (job % 7)),
    ]


def report_of(job: int, *, host: str = "n", attempt: int = 1) -> JobReport:
    """What a job's run was like."""
    return JobReport(
        job=job,
        attempt=attempt,
        host=host,
        exit_status=0,
        started=1e9 + job,
        wall_s=1.5,
        cpu_s=1.25,
        max_rss_mb=10.0,
        stdout_tail=f"line\nof {job} ü",
    )


def arrays(first: int, last: int) -> dict[str, object]:
    """Columns of many kinds; event k is the same however ranges are cut."""
    events = np.arange(first, last)
    hits = (events * 7 % 4).astype("<i4")
    tracks = (events % 3).astype("<u2")

    def each(counts: np.ndarray, start: int) -> np.ndarray:
        parts = [np.arange(n) + 1000 * e + start for e, n in zip(events, counts, strict=True)]
        return np.concatenate([np.empty(0, dtype=int), *parts])

    return {
        "event": events.astype("<u8"),
        "flag": events % 2 == 0,
        "name": np.array([b"e%d" % (e % 99) for e in events], dtype="S4"),
        "group/matrix": np.stack([events * k for k in range(6)], axis=1).reshape(-1, 2, 3).astype("<f4"),
        "z": (events + 1j * events).astype("<c16"),
        "hits": hits,
        "hit_energy": Items(each(hits, 1).astype("<f8"), "hits"),
        "hit_id": Items(each(hits, 5).astype("<i4"), "hits"),
        "tracks": tracks,
        "track_p": Items(np.stack([each(tracks, k) for k in range(3)], axis=1).astype("<f4"), "tracks"),
    }


def plain_bytes(first: int, last: int) -> bytes:
    """A line an event."""
    return b"".join(b"event %d %s\n" % (e, b"x" * (e % 17)) for e in range(first, last))


class Spool:
    """A folder of journals."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)

    def node(
        self,
        name: str,
        ranges: Sequence[tuple[int, int]],
        payload: Payload,
        *,
        epoch: int = 1,
        roll: int = 1 << 30,
    ) -> Source:
        """One node's journal with these ranges, in this order."""
        journal = self.folder / f"{name}.journal"
        number, written = 0, 0
        entries, schema = [], None
        for first, last in ranges:
            schema, data = encode(payload(first, last), last - first)
            blob = b"".join(data)
            if written and written + len(blob) > roll:
                number, written = number + 1, 0
            with segment_path(journal, number).open("ab") as segment:
                segment.write(blob)
            crc = zlib.crc32(blob)
            entries.append((epoch, 0, number, first, last, written, len(blob), crc, 1.0, 0.0, 1.0, 0))
            written += len(blob)
        header = JournalHeader(
            task_id=1, allocation_id="a", pack_id="p", incarnation=0, rank=0, host=name, cores=1, started=0.0
        )
        frames = [header_frame(header)]
        if schema is not None:
            frames += [schema_frame(schema), done_frame(np.array(entries, dtype=ENTRY))]
        journal.write_bytes(b"".join(frames) + frame(FrameKind.MARK))
        events = IntervalSet()
        for first, last in ranges:
            events = events.add(first, last)
        return Source(journal=journal, epoch=epoch, events=events)

    def jobs(
        self,
        name: str,
        jobs: Iterable[int],
        files: Callable[[int], Files],
        *,
        epoch: int = 1,
        roll: int = 1 << 30,
        failed: Sequence[FailedEvent] = (),
        attempt: int = 1,
        damage: Callable[[int, bytes], bytes] = lambda _, data: data,
    ) -> Source:
        """One node's journal with the bundles of these jobs, in this order, written by a recorder."""
        journal = self.folder / f"{name}.journal"
        header = JournalHeader(
            task_id=1, allocation_id="a", pack_id="p", incarnation=0, rank=0, host=name, cores=1, started=0.0
        )
        recorder = Recorder(journal, header, roll_bytes=roll, sync_s=0.001, on_durable=lambda _: None)
        recorder.fix_schema(BYTES)
        events = IntervalSet()
        for job in jobs:
            data = damage(job, b"".join(bundle(report_of(job, host=name, attempt=attempt), files(job))))
            entry = (epoch, 0, 0, job, job + 1, 0, len(data), zlib.crc32(data), 1.0, 0.0, 1.0, 0)
            recorder.record(np.array([entry], dtype=ENTRY), [data])
            events = events.add(job, job + 1)
        if failed:
            recorder.set_aside(FailedInEpoch(epoch=epoch, events=tuple(failed)))
        recorder.close()
        return Source(journal=journal, epoch=epoch, events=events)

    def nodes(
        self,
        events: int,
        payload: Payload,
        *,
        seed: int = 0,
        nodes: int = 3,
        longest: int = 9,
        roll: int = 4000,
    ) -> list[Source]:
        """All events of a task, cut and dealt out at random."""
        rng = random.Random(seed)
        dealt: list[list[tuple[int, int]]] = [[] for _ in range(nodes)]
        at = 0
        while at < events:
            last = min(events, at + rng.randint(1, longest))
            dealt[rng.randrange(nodes)].append((at, last))
            at = last
        for ranges in dealt:
            rng.shuffle(ranges)
        return [self.node(f"s{seed}n{k}", ranges, payload, roll=roll) for k, ranges in enumerate(dealt)]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty spool folder."""
    return Spool(tmp_path / "spool")


@pytest.fixture
def payload_of() -> Callable[[OutputFormat], Payload]:
    """A payload that suits a format."""
    return lambda kind: arrays if kind is OutputFormat.HDF5 else plain_bytes
