"""Slices of cut tasks at the edge: kept with their lease, handed to packs, forgotten in time; and what scouts are
measured by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hpcpanda_edge import accounts
from hpcpanda_edge.files import Collected, ReadJournal
from hpcpanda_edge.journal_names import JournalName
from hpcpanda_edge.measuring import measures_of
from hpcpanda_edge.records import JournalRecord
from hpcpanda_edge.reporting import make_report
from hpcpanda_edge.store import Store
from support.edge_books import JOURNAL, entries, part

from hpcpanda.allocation.job_record import record_job
from hpcpanda.allocation.plan import LeasedEvents
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.exchange import Grants, LeaseGrant
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.scouting import JobMeasure
from hpcpanda.domain.splitting import JobSlice, SliceFile
from hpcpanda.domain.task import TaskSpec
from hpcpanda.events.bundle import JobReport
from hpcpanda.events.journal import JournalHeader, read_journal
from hpcpanda.events.recorder import Recorder

SPEC = TaskSpec(
    name="cut",
    jobs=10,
    scouts=3,
    payload=JobPayload(command=("true",), outputs=("out",)),
    output=Output(file="out.zip", format=OutputFormat.ZIP),
)
SLICES = tuple(
    JobSlice(job=n, first=n, last=n + 1, files=(SliceFile(path=f"/{n}", first=0, last=1),)) for n in range(10)
)


def grant(first: int, last: int, epoch: int = 7) -> LeaseGrant:
    """A lease of jobs, told with their slices."""
    jobs = IntervalSet.span(first, last)
    return LeaseGrant(
        task_id=1, epoch=epoch, events=jobs, spec=SPEC, expires_in_s=60.0, slices=SLICES[first:last]
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "edge.sqlite")
    with store.transaction():
        accounts.take_grants(store, Grants(leases=(grant(0, 4), grant(4, 8, 8))))
    yield store
    store.close()


def test_a_pack_is_given_the_slices_of_its_jobs(store: Store, tmp_path: Path) -> None:
    """Those of its own jobs and of no others; also by an edge that was started again since the lease."""
    store.close()
    again = Store(tmp_path / "edge.sqlite")
    with again.transaction():
        given = accounts.hand_out(again, 1, "a1-p1", 6)
    again.close()
    assert given == (
        LeasedEvents(epoch=7, events=IntervalSet.span(0, 4), slices=SLICES[:4]),
        LeasedEvents(epoch=8, events=IntervalSet.span(4, 6), slices=SLICES[4:6]),
    )


def test_slices_are_kept_until_nothing_of_the_lease_is_left(store: Store) -> None:
    """Finished, given back or lost: what nobody here will do any more takes no room; what may be tried again does."""
    with store.transaction():
        accounts.hand_out(store, 1, "a1-p1", 3)
        accounts.accept(store, JOURNAL, "a1-p1", part(entries((0, 1), (1, 2))))
    assert (1, 7) in store.slices
    with store.transaction():
        accounts.release(store, 1, "a1-p1")
    assert (1, 7) in store.slices, "job 2 is tried again"
    with store.transaction():
        assert accounts.hand_out(store, 1, "a2-p1", 1)[0].slices == SLICES[2:3]
        accounts.accept(store, replace(JOURNAL, name="b"), "a2-p1", part(entries((2, 3))))
        accounts.give_back(store, 1)
    assert not store.slices, "of lease 7 job 3 was given back, and all of lease 8"


def test_a_lost_lease_takes_its_slices_along(store: Store) -> None:
    """The dispatcher tells whoever is given the jobs next."""
    with store.transaction():
        accounts.lose(store, store.leases[1, 8])
    assert list(store.slices) == [(1, 7)]


def test_what_scouts_used_goes_with_their_commit(store: Store, tmp_path: Path) -> None:
    """Read from the reports in their bundles, of scouts only; and said again until the dispatcher has answered."""
    spool = Spool(tmp_path / "spool")
    events = spool.events(1)
    events.mkdir(parents=True)
    name = "a1-p1-i0-r0.journal"
    header = JournalHeader(
        task_id=1, allocation_id="a1", pack_id="p1", incarnation=0, rank=0, host="n", cores=2, started=1e9
    )
    recorder = Recorder(events / name, header, roll_bytes=1 << 24, sync_s=0.05, on_durable=lambda _: None)
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "out").write_bytes(bytes(1 << 20))
    for job in (2, 3):
        report = JobReport(
            job=job,
            attempt=1,
            host="n",
            exit_status=0,
            started=1e9,
            wall_s=12.0,
            cpu_s=1.0,
            max_rss_mb=345.0,
            disk_mb=2.0,
        )
        record_job(recorder, report, folder, ("out",), epoch=7, slot=0, cores=1)
    recorder.close()
    read = read_journal(events / name, start=0, durable_only=False)
    parsed = JournalName.parse(name)
    assert parsed is not None
    found = Collected(
        journals=[ReadJournal(name=parsed, record=JournalRecord(name=name, task_id=1), part=read)]
    )
    measures = measures_of(spool, store, found)
    assert set(measures) == {(1, 2)}, "job 3 is no scout"
    told = measures[1, 2]
    assert (told.wall_s, told.max_rss_mb, told.disk_mb) == (12.0, 345.0, 2.0)
    assert told.output_mb == pytest.approx(1.0, abs=0.01)
    with store.transaction():
        accounts.hand_out(store, 1, "a1-p1", 4)
        assert accounts.accept(store, found.journals[0].record, "a1-p1", read, measures) == 2
    for _ in range(2):
        (commit,) = make_report(store, {}, instance="e").request.commits
        assert commit.measured == (told,)
        assert commit.done == IntervalSet.span(2, 4)


def test_figures_that_make_no_sense_are_not_passed_on(store: Store, tmp_path: Path) -> None:
    """A bundle that cannot be read gives no measure; its job counts as done all the same."""
    rows = entries((0, 1))
    journal = ReadJournal(
        name=JournalName(allocation_id="a1", pack_id="p1", incarnation=0, rank=0),
        record=JOURNAL,
        part=part(rows),
    )
    assert measures_of(Spool(tmp_path), store, Collected(journals=[journal])) == {}
    with store.transaction():
        accounts.hand_out(store, 1, "a1-p1", 4)
        assert accounts.accept(store, JOURNAL, "a1-p1", part(rows)) == 1
    assert np.all(rows["first"] == 0)
    assert JobMeasure(job=0, wall_s=0.0).max_rss_mb == 0.0
