"""The trace of an allocation tells what its cores did: events, jobs, MPI jobs, and what came of it."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.allocation.spool import STATUS, Spool, journal_name, write_message
from hpcpanda.allocation.timeline import Doing, Timeline, collect, write_trace
from hpcpanda.allocation.timeline_picture import draw_timelines
from hpcpanda.events.columns import BYTES
from hpcpanda.events.journal import ENTRY, JournalHeader
from hpcpanda.events.recorder import Recorder

Ran = tuple[int, int, float, float]
"""First slot, cores (0: events), begin and length of an entry."""


class Rig:
    """A spool with one allocation of two nodes of four cores, from second 0 to second 10."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self.folder = self.spool.allocation("a")
        self.folder.create()
        self.note(0.0, "allocation-started", nodes=2, cores=4)

    def note(self, at: float, what: str, **facts: str | float) -> None:
        with self.folder.history.open("a") as file:
            file.write(json.dumps({"at": at, "what": what} | facts) + "\n")

    def journal(self, *ran: Ran, host: str = "n1", pack: str = "p1", task: int = 1, rank: int = 0) -> None:
        """A journal of a rank."""
        header = JournalHeader(
            task_id=task, allocation_id="a", pack_id=pack, incarnation=0, rank=rank, host=host, cores=4, started=0.0
        )  # fmt: skip
        path = self.spool.events(task) / journal_name("a", pack, 0, rank)
        path.parent.mkdir(parents=True, exist_ok=True)
        recorder = Recorder(path, header, roll_bytes=1 << 20, sync_s=0.01, on_durable=lambda _: None)
        recorder.fix_schema(BYTES)
        for number, (slot, cores, start, wall_s) in enumerate(ran):
            entry = np.zeros(1, dtype=ENTRY)
            entry["slot"], entry["cores"], entry["start"], entry["wall_s"] = slot, cores, start, wall_s
            entry["first"], entry["last"] = number, number + 1
            entry["crc"] = zlib.crc32(b"")
            recorder.record(entry, [b""])
        recorder.close()

    def collect(self) -> Timeline:
        self.note(10.0, "allocation-ended")
        return collect(self.spool, "a")


def held(timeline: Timeline, doing: Doing) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """Spans by host and slot."""
    return {
        (c.host, c.slot): [(b, round(e, 3)) for b, e in zip(c.begin.tolist(), c.end.tolist(), strict=True)]
        for c in timeline.cores
        if c.doing is doing and len(c.begin)
    }


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_events_and_jobs_are_told_apart(rig: Rig) -> None:
    """A job has all its cores; all finished core-seconds count once."""
    rig.journal((0, 0, 0.0, 5.0))
    rig.journal((1, 3, 0.0, 10.0), task=2)
    found = rig.collect()
    assert held(found, Doing.EVENTS) == {("n1", 0): [(0.0, 5.0)]}
    assert held(found, Doing.JOB) == {("n1", s): [(0.0, 10.0)] for s in (1, 2, 3)}
    assert found.finished == pytest.approx(35 / 80)


def test_a_job_on_cores_that_are_not_side_by_side_hides_no_other(rig: Rig) -> None:
    """The journal has its first core and their number: another job's core between them stays that job's."""
    rig.journal((1, 1, 0.0, 10.0), (0, 2, 2.0, 5.0))
    found = rig.collect()
    assert held(found, Doing.JOB) == {
        ("n1", 0): [(2.0, 7.0)],
        ("n1", 1): [(0.0, 10.0)],
        ("n1", 2): [(2.0, 7.0)],
    }
    assert found.finished == pytest.approx(20 / 80)


def test_an_mpi_job_is_one_row_with_all_cores_of_its_nodes(rig: Rig) -> None:
    """Named by its pack; its core-seconds are those of whole nodes."""
    rig.note(0.0, "pack-started", pack="m1", kind="mpi-job")
    rig.journal((0, 8, 1.0, 4.0), host="m1, an MPI job on 2 nodes", pack="m1")
    found = rig.collect()
    assert held(found, Doing.MPI_JOB) == {("m1, an MPI job on 2 nodes", 0): [(1.0, 5.0)]}
    assert found.finished == pytest.approx(32 / 80)


def test_work_that_came_to_nothing_occupies_cores_too(rig: Rig) -> None:
    """What the head has counted is occupancy, what the journals show is finished."""
    rig.journal((0, 4, 0.0, 2.0))
    status = AllocationStatus(
        allocation_id="a", state="ended", head_pid=1, host="n1", written=10.0, inbox_read=0, packs=(), busy_s=60.0
    )  # fmt: skip
    write_message(rig.folder.status, STATUS, status)
    found = rig.collect()
    assert (found.occupancy, found.finished) == (pytest.approx(60 / 80), pytest.approx(8 / 80))


def test_a_lost_node_counts_until_that_is_known(rig: Rig) -> None:
    """From then on the allocation has fewer cores."""
    rig.note(4.0, "nodes-lost", nodes=1)
    assert rig.collect().core_seconds == 8 * 4 + 4 * 6


def test_traces_are_drawn(rig: Rig, tmp_path: Path) -> None:
    """With all that can happen; the picture is a PNG of moderate size."""
    rig.note(0.0, "pack-started", pack="m1", kind="mpi-job")
    rig.note(1.0, "pack-started", pack="g1", kind="merge")
    rig.note(2.0, "nodes-lost", nodes=1)
    rig.note(3.0, "told-to-end")
    rig.journal((0, 0, 0.0, 5.0))
    rig.journal((1, 3, 0.0, 10.0), task=2)
    rig.journal((0, 8, 1.0, 4.0), host="m1, an MPI job on 2 nodes", pack="m1")
    trace, picture = tmp_path / "trace.json", tmp_path / "t.png"
    write_trace(rig.collect(), trace)
    draw_timelines([trace, trace], picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 300_000
