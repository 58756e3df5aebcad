"""Payloads that misbehave in every way: the guilty events are named, their neighbours done, the pack goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcpanda.allocation.plan import WorkPack
from hpcpanda.allocation.worker_log import CAP_BYTES
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.events.journal import events_of, read_journal
from tests.support.allocation import Rig, event_pack
from tests.support.job_world import job_work

RigMaker = Callable[..., Rig]

EVENTS = 100
BAD = 37


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raise", "ValueError: this event is bad"),
        ("leave", "SystemExit"),
        ("segfault", "SIGSEGV"),
        ("vanish", "exit status 4"),
        ("hang", "took longer than 0.3 s"),
        ("leak", "MiB of memory; the limit is 250 MiB"),
        ("lengths", "has 0 rows, the range needs 1"),
        ("dtype", "all ranges of a task must have the same columns"),
    ],
)
def test_one_bad_event_is_isolated(rig: RigMaker, how: str, says: str) -> None:
    """However an event fails, it alone is set aside, with a reason, and all others are done."""
    a = rig()
    a.start(
        event_pack(
            (1, 0, EVENTS),
            settings={"bad": BAD, "how": how, "columns": how in ("lengths", "dtype")},
            attempts=2,
            max_events=1 if how in ("hang", "leak") else None,
            memory_mb=250,
            range_timeout_s=0.3 if how == "hang" else 60.0,
        )
    )
    assert a.wait() == 0
    (failed,) = a.failed()
    assert (failed.event, failed.attempts) == (BAD, 2)
    assert says in failed.error
    plain_bytes = how not in ("lengths", "dtype")
    assert a.done(content=plain_bytes) == {1: IntervalSet.span(0, EVENTS).remove(BAD, BAD + 1)}
    assert a.pack().error is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"call": "no_such_module_anywhere:run"}, "no_such_module_anywhere"),
        ({"setup": "setup_leaves"}, "SystemExit"),
        ({"setup": "setup_vanishes"}, "exit status 9; it last printed: about to crash"),
        ({"setup": "setup_never_ends", "setup_timeout_s": 0.5}, "set-up took longer than 0.5 s"),
    ],
)
def test_a_payload_that_cannot_begin_fails_the_task(
    rig: RigMaker, settings: dict[str, object], says: str
) -> None:
    """A payload that cannot be set up is not tried again, and the task says why."""
    a = rig()
    a.start(event_pack((1, 0, EVENTS), **settings))
    assert a.wait() == 0
    assert a.task().state == "failed"
    assert says in str(a.task().error)
    assert len(a.history("pack-started")) == 1
    assert a.done() == {}


def test_a_flood_of_output_is_capped(rig: RigMaker) -> None:
    """A payload may print without end: its log has a limit, and its events are done all the same."""
    a = rig()
    a.start(event_pack((1, 0, 30), call="flood"))
    assert a.wait() == 0
    assert a.done() == {1: IntervalSet.span(0, 30)}
    (log,) = a.allocation.logs.glob("*-r0.payload.log")
    assert CAP_BYTES <= log.stat().st_size < CAP_BYTES + (1 << 17)


def test_not_a_number_is_a_result(rig: RigMaker) -> None:
    """Results that are not numbers are kept as they are."""
    a = rig()
    a.start(event_pack((1, 0, 50), call="numbers"))
    assert a.wait() == 0
    (journal,) = map(read_journal, a.journals())
    assert events_of(journal.entries) == IntervalSet.span(0, 50)
    assert journal.failed == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four mebibytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_spool_ends_the_pack_with_a_reason(rig: RigMaker, small_disk: Path) -> None:
    """When the spool is full the pack ends and says so; what was done before can be read."""
    a = rig(spool_path=small_disk)
    a.start(event_pack((1, 0, 10_000), call="fat", max_events=1))
    assert a.wait() == 0
    assert "No space left on device" in str(a.pack().error)
    (journal,) = map(read_journal, a.journals())
    assert 0 < len(journal.entries) < 64


def test_a_node_that_is_not_what_the_site_file_says_runs_no_job(rig: RigMaker) -> None:
    """Events still run there; the status names node and field."""
    made = rig(memory_mb=64_000_000)
    (events,) = event_pack((1, 0, 20)).work
    made.start(WorkPack(pack_id="p", nodes=1, work=(job_work(2, jobs=3), events)))
    assert made.wait() == 0
    (complaint,) = made.pack().complaints
    assert complaint.startswith("node 0 gets no jobs: ")
    assert "nodes.memory_mb says 64000000" in complaint
    assert events_of(read_journal(made.journals()[0]).entries) == IntervalSet.span(0, 20)
    assert not made.journals(2)
