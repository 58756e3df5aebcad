"""SIGKILL of every kind of process of an allocation: what is journalled stays, the rest is done once more."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.events.journal import events_of, read_journal
from tests.support.allocation import Rig, event_pack

RigMaker = Callable[..., Rig]

EVENTS = 1600


def streaming(rig: RigMaker) -> Rig:
    """Two nodes of two workers that have done some of their events."""
    a = rig(nodes=2)
    a.start(event_pack((1, 0, EVENTS), nodes=2, settings={"event_ms": 5}))
    a.until(lambda: any(map(_has_entries, a.journals())), "the first journalled events")
    return a


def _has_entries(path: object) -> bool:
    return len(read_journal(path).entries) > 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "role",
    ["worker", "fork server", "nursery", "job keeper", "rank 0", "rank 1", "proxy", "mpiexec"],
    ids=lambda r: r.replace(" ", "-"),
)
def test_the_pack_goes_on_after_a_kill(rig: RigMaker, role: str) -> None:
    """Whatever is killed, all events are done with the right content, and none is blamed for it."""
    a = streaming(rig)
    before = sum(len(events_of(read_journal(p).entries)) for p in a.journals())
    a.kill(role)
    assert a.wait() == 0
    assert 0 < before < EVENTS
    # until the ranks of a dead launcher have noticed, they may journal events that are begun anew
    assert a.done(copies=role in ("proxy", "mpiexec")) == {1: IntervalSet.span(0, EVENTS)}
    assert a.failed() == []
    assert (a.pack().state, a.pack().error) == ("ended", None)
    assert len(a.history("pack-started")) == (1 if role == "worker" else 2)


def test_a_killed_fork_server_loses_nothing_journalled(rig: RigMaker) -> None:
    """When the fork server dies, the ranks end their journals in order before the pack is started again."""
    a = streaming(rig)
    a.kill("fork server")
    assert a.wait() == 0
    first = [p for p in a.journals() if "-i0-" in p.name]
    assert len(first) == 2
    assert all(read_journal(path).closed for path in first)
    (ended, _) = a.history("pack-ended")
    assert ended["how"] == "exit status 0"


def test_nothing_survives_the_head_and_a_second_head_goes_on(rig: RigMaker) -> None:
    """When the head is killed all its processes go; a second head in the same folder does what is left."""
    a = streaming(rig)
    a.kill("head")
    a.wait()
    assert a.gone() == []
    before = a.done()[1]
    assert 0 < len(before) < EVENTS
    a.start()
    assert a.wait() == 0
    assert a.done() == {1: IntervalSet.span(0, EVENTS)}
    assert {p.name for p in a.journals()} == {f"a-p-i{i}-r{r}.journal" for i in (0, 1) for r in (0, 1)}


def test_a_second_head_with_nothing_left_ends(rig: RigMaker) -> None:
    """Started again after everything is done, the head ends without doing anything twice."""
    a = rig()
    a.start(event_pack((1, 0, 100)))
    assert a.wait() == 0
    a.start()
    assert a.wait() == 0
    assert a.done() == {1: IntervalSet.span(0, 100)}


def test_a_pack_that_dies_at_its_start_is_given_up(rig: RigMaker) -> None:
    """A pack whose ranks die again and again without doing an event ends with the reason."""
    a = rig()
    a.start(event_pack((1, 0, 100), setup="setup_never_ends"))
    for _ in range(4):
        started = len(a.history("pack-started")) if a.allocation.history.exists() else 0
        victim = a.kill("rank 0")
        victim.wait(10)
        a.until(lambda n=started: len(a.history("pack-ended")) > max(0, n - 1), "the end of the pack")
    assert a.wait() == 0
    assert a.pack().state == "ended"
    assert "the pack died" in str(a.pack().error)
    assert len(a.history("pack-started")) == 4
