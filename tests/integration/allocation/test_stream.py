"""Real packs through the real head: what is asked for is done once, with the right content."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hpcpanda.allocation.plan import Drain, Revoke, StartPack, TopUp
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.site import PackVia
from hpcpanda.events.journal import read_journal
from tests.support.allocation import Rig, event_pack, leased

RigMaker = Callable[..., Rig]


@pytest.mark.parametrize("nodes", [1, 2])
def test_every_event_is_journalled_once(rig: RigMaker, nodes: int) -> None:
    """One node or two: all events of two epochs are done once, and the journals end in order."""
    a = rig(nodes=nodes)
    a.start(event_pack((1, 0, 3000), (2, 5000, 6000), nodes=nodes, settings={"event_ms": 0.1}))
    assert a.wait() == 0
    assert a.done() == {1: IntervalSet.span(0, 3000), 2: IntervalSet.span(5000, 6000)}
    assert len(a.journals()) == nodes
    assert all(read_journal(path).closed for path in a.journals())
    assert a.status().state == "ended"
    assert (a.pack().state, a.pack().done, a.pack().error) == ("ended", 4000, None)
    assert a.pack().cores == 2 * nodes


def test_setup_runs_once_a_node(rig: RigMaker, tmp_path: Path) -> None:
    """Workers are forked from one process that has run the set-up."""
    a = rig()
    trace = tmp_path / "trace"
    a.start(event_pack((1, 0, 100), setup="setup_once", settings={"trace": str(trace)}))
    assert a.wait() == 0
    assert len(trace.read_text().splitlines()) == 1


def test_top_up_reaches_a_running_pack(rig: RigMaker) -> None:
    """Events that come through the inbox while the pack runs, or right after it became idle, are done too."""
    a = rig(linger_s=1.0)
    a.start(event_pack((1, 0, 50)))
    a.until(lambda: a.pack().state == "running", "the begin of the pack")
    a.send(TopUp(pack_id="p", task_id=1, events=leased((2, 100, 200))))
    a.until(lambda: a.pack().done == 150, "the end of all events")
    a.send(TopUp(pack_id="p", task_id=1, events=leased((3, 500, 510))))
    assert a.wait() == 0
    assert a.done() == {
        1: IntervalSet.span(0, 50), 2: IntervalSet.span(100, 200), 3: IntervalSet.span(500, 510),
    }  # fmt: skip
    assert a.status().inbox_read == 2


def test_messages_left_before_the_head_starts_count(rig: RigMaker) -> None:
    """A top-up, a revoke and a further pack that lie in the inbox at the start are acted on."""
    a = rig()
    a.allocation.create()
    a.send(TopUp(pack_id="p", task_id=1, events=leased((2, 100, 150))))
    a.send(Revoke(pack_id="p", task_id=1, epochs=(1,)))
    a.send(StartPack(pack=event_pack((7, 0, 20), pack_id="q")))
    a.send(TopUp(pack_id="q", task_id=1, events=leased((8, 20, 30))))
    a.start(event_pack((1, 0, 50)))
    assert a.wait() == 0
    assert a.done() == {
        2: IntervalSet.span(100, 150), 7: IntervalSet.span(0, 20), 8: IntervalSet.span(20, 30),
    }  # fmt: skip


def test_a_further_pack_starts_on_free_nodes(rig: RigMaker) -> None:
    """Two packs of one node each run at the same time in an allocation of two nodes."""
    a = rig(nodes=2, cores=1, linger_s=0.5)
    a.start(event_pack((1, 0, 10**6), settings={"event_ms": 1}))
    a.until(lambda: a.pack().done > 0, "the first events")
    a.send(StartPack(pack=event_pack((2, 0, 30), pack_id="q", task_id=2)))
    a.until(lambda: a.pack("q").state == "ended", "the end of the second pack")
    assert a.pack().state == "running"
    a.send(Drain(grace_s=1.0))
    assert a.wait() == 0
    assert a.done(2) == {2: IntervalSet.span(0, 30)}


def test_a_revoked_epoch_is_not_worked_on_any_more(rig: RigMaker) -> None:
    """After a revoke only what workers had in hand is finished; other epochs go on."""
    a = rig()
    a.start(event_pack((1, 0, 10**6), (2, 10**6, 10**6 + 100), settings={"event_ms": 2}))
    a.until(lambda: a.pack().done > 0, "the first events")
    a.send(Revoke(pack_id="p", task_id=1, epochs=(1,)))
    assert a.wait() == 0
    done = a.done()
    assert done[2] == IntervalSet.span(10**6, 10**6 + 100)
    assert len(done[1]) < 5000


def test_sigterm_drains_within_the_grace_time(rig: RigMaker) -> None:
    """On SIGTERM the head ends with status 0 inside the grace time; nothing done is lost, the rest is undone."""
    a = rig(grace_s=8.0)
    a.start(event_pack((1, 0, 10**6), settings={"event_ms": 5}))
    a.until(lambda: a.pack().done > 0, "the first events")
    told = time.monotonic()
    assert a.head is not None
    a.head.send_signal(signal.SIGTERM)
    assert a.wait() == 0
    assert time.monotonic() - told < 8.0
    assert a.pack().state == "ended"
    assert len(a.done()[1]) == a.pack().done < 10**6
    assert all(read_journal(path).closed for path in a.journals())


def test_a_range_longer_than_the_grace_time_is_given_up(rig: RigMaker) -> None:
    """What does not finish in time is ended and not done; nobody is blamed for it."""
    a = rig(grace_s=0.5)
    a.start(event_pack((1, 0, 100), settings={"event_ms": 60_000}))
    a.until(lambda: len(a.of_role("worker")) == 2, "the workers")
    assert a.head is not None
    a.head.send_signal(signal.SIGTERM)
    assert a.wait() == 0
    assert a.done() == {}
    assert a.failed() == []


@pytest.mark.alone
def test_nothing_starts_that_cannot_end_before_the_deadline(rig: RigMaker) -> None:
    """With 0.3 s an event and a short wall time, the last range ends before the wall minus the margin."""
    a = rig(walltime_s=7.0, margin_s=2.0, grace_s=2.0)
    a.start(event_pack((1, 0, 1000), settings={"event_ms": 300}, target_seconds=0.5))
    assert a.wait() == 0
    began = a.history("allocation-started")[0]["at"]
    assert a.history("allocation-ended")[0]["at"] - began < 7.0
    entries = [read_journal(path).entries for path in a.journals()]
    ends = [float((e["start"] + e["wall_s"]).max()) for e in entries if len(e)]
    assert max(ends) - began < 5.0
    assert 8 <= len(a.done()[1]) < 1000


@pytest.mark.parametrize("nodes", [1, 2])
def test_an_idle_pack_sleeps(rig: RigMaker, nodes: int) -> None:
    """Ranks without work use less than two percent of a core."""
    a = rig(nodes=nodes, cores=1, linger_s=30.0)
    a.start(event_pack((1, 0, 10), nodes=nodes))
    a.until(lambda: a.pack().idle, "the end of the work")
    ranks = [p for role, p in a.processes() if role.startswith("rank")]
    assert len(ranks) == nodes
    before = [_cpu(p) for p in ranks]
    began = time.monotonic()
    time.sleep(3.0)
    over = time.monotonic() - began
    shares = [(_cpu(p) - b) / over for p, b in zip(ranks, before, strict=True)]
    assert max(shares) < 0.02, shares
    a.send(Drain(grace_s=1.0))
    assert a.wait() == 0


def test_parsl_starts_packs_too(rig: RigMaker) -> None:
    """The same pack through Parsl's MPIExecutor: all events once, and Parsl leaves nothing behind."""
    a = rig(via=PackVia.PARSL, nodes=2, cores=1, linger_s=0.5)
    a.start(event_pack((1, 0, 500), nodes=2))
    a.until(lambda: a.pack().done == 500, "the end of the work", 60)
    assert a.wait(60) == 0
    assert a.done() == {1: IntervalSet.span(0, 500)}


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
