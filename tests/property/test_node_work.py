"""Whatever workers do, no event of a node is lost or doubled, and suspect ranges run whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from hpcpanda.allocation.messages import Chunk, Piece, Report
from hpcpanda.allocation.node_work import Command, NodeWork
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.task import RangePolicy
from hpcpanda.events.journal import ENTRY, Entries

SLOTS = 2
slots = st.integers(0, SLOTS - 1)


def entries_of(epoch: int, ranges: list[tuple[int, int]], seconds: float = 0.01) -> Entries:
    """Finished ranges."""
    entries = np.zeros(len(ranges), dtype=ENTRY)
    entries["epoch"] = epoch
    entries["first"], entries["last"] = zip(*ranges, strict=True)
    entries["wall_s"] = seconds
    return entries


def node_work(*, deadline: float = 1e9, prior: float | None = None, **policy: float) -> NodeWork:
    """The work of a node of two slots."""
    return NodeWork(
        slots=SLOTS, cores_in_pack=2 * SLOTS, policy=RangePolicy(**policy), prior=prior, deadline=deadline
    )  # type: ignore[arg-type]


class NodeMachine(RuleBasedStateMachine):
    """A pretended coordinator that gives pieces, and workers that finish, fail, skip and die."""

    def __init__(self) -> None:
        super().__init__()
        self.work = node_work(deadline=500.0, target_seconds=0.1, max_events=16)
        self.now = 0.0
        self.next_event = 0
        self.given: dict[int, IntervalSet] = {}
        self.heard: dict[int, IntervalSet] = {}
        self.suspects: dict[tuple[int, int, int], Piece] = {}
        self.commands: list[list[Command]] = [[] for _ in range(SLOTS)]
        self.asked = False
        self.reserved: frozenset[int] = frozenset()
        self.told_use = 0.0

    @rule(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=3), suspect=st.booleans())
    def chunk(self, lengths: list[int], suspect: bool) -> None:
        """The coordinator answers a want."""
        if not self.asked:
            want = self.work.want()
            assert want is None or want.events > 0
            self.asked = want is not None
            return
        self.asked = False
        pieces = []
        for length in lengths:
            epoch = 1 + self.next_event % 2
            first = self.next_event
            self.next_event += length + self.next_event % 3  # some touch, some do not
            attempts = self.next_event % 3 if suspect and length == 1 else 0
            piece = Piece(epoch=epoch, first=first, last=first + length, suspect=suspect, attempts=attempts)
            pieces.append(piece)
            if suspect:
                self.suspects[epoch, first, first + length] = piece
            self.given[epoch] = self.given.get(epoch, EMPTY) | piece.events
        self.work.add(Chunk(pieces=tuple(pieces), left=100))

    @rule(slot=slots)
    def command(self, slot: int) -> None:
        """A worker is given ranges: of known events, within the limits, a suspect piece whole."""
        command = self.work.next_command(slot, self.now)
        if command is None:
            return
        assert slot not in self.reserved
        assert command.first < command.last
        assert self.given[command.epoch].covers(command.first, command.last)
        assert not self.heard.get(command.epoch, EMPTY).overlaps(command.first, command.last)
        for others in self.commands:
            for other in others:
                same_epoch = other.epoch == command.epoch
                assert not (same_epoch and other.first < command.last and command.first < other.last)
        for epoch, first, last in self.suspects:
            if epoch == command.epoch and first < command.last and command.first < last:
                assert (command.first, command.last) == (first, last)
                assert command.step == last - first
                break
        else:
            assert 1 <= command.step <= 16
        assert command.latest_start <= 500.0
        self.commands[slot].append(command)

    def _next_range(self, slot: int) -> tuple[int, int, int] | None:
        """Take the next range off a worker's first command."""
        if not self.commands[slot]:
            return None
        command = self.commands[slot].pop(0)
        end = min(command.first + command.step, command.last)
        if end < command.last:
            rest = Command(
                epoch=command.epoch, first=end, last=command.last, step=command.step,
                latest_start=command.latest_start,
            )  # fmt: skip
            self.commands[slot].insert(0, rest)
        return command.epoch, command.first, end

    @rule(slot=slots, seconds=st.floats(1e-6, 0.2))
    def finish(self, slot: int, seconds: float) -> None:
        """A worker has finished a range."""
        if found := self._next_range(slot):
            epoch, first, last = found
            self.now += seconds
            self.work.results(slot, entries_of(epoch, [(first, last)], seconds), self.now)
            self.suspects.pop(found, None)

    @rule(slot=slots)
    def fail(self, slot: int) -> None:
        """The payload fails on a range."""
        if found := self._next_range(slot):
            self.work.failed(slot, *found, "no", self.now)
            assert self.work.has_failures

    @rule(slot=slots)
    def skip(self, slot: int) -> None:
        """A worker had no time for the rest of a command."""
        if self.commands[slot]:
            command = self.commands[slot].pop(0)
            self.work.skipped(slot, command.epoch, command.first, command.last, self.now)
            self.suspects.pop((command.epoch, command.first, command.last), None)

    @rule(slot=slots)
    def die(self, slot: int) -> None:
        """A worker dies with whatever it had."""
        self.commands[slot].clear()
        self.work.vacate(slot, self.now)
        assert not self.work.slots[slot].outstanding

    @rule(slot=slots)
    def report_what_was_not_given(self, slot: int) -> None:
        """Events that a worker was never given are refused and change nothing."""
        with pytest.raises(CorruptData):
            self.work.results(slot, entries_of(9, [(10**6, 10**6 + 1)]), self.now)

    @rule()
    def report(self) -> None:
        """The coordinator hears each event once."""
        self.now += 0.1
        report = self.work.report()
        assert not self.work.has_news
        if report is not None:
            self._hear(report)

    @rule()
    def tell_use(self) -> None:
        """No worker was busy for longer than time has passed."""
        over, self.told_use = self.now - self.told_use, self.now
        assert all(0.0 <= seconds <= over + 1e-6 for seconds in self.work.busy_seconds(self.now))

    @rule(reserved=st.frozensets(slots))
    def reserve(self, reserved: frozenset[int]) -> None:
        """Jobs take cores and give them back; without a core the node holds nothing that it has not begun."""
        self.reserved = reserved
        self.work.reserve(reserved)
        if len(reserved) == SLOTS:
            assert self.work.want() is None
            held = sum(s.events for s in self.work.slots)
            assert held == sum(c.last - c.first for mine in self.commands for c in mine)

    def _hear(self, report: Report) -> None:
        told = [(p.epoch, p.events) for p in (*report.done, *report.back)]
        for failed in report.failed:
            piece = failed.piece
            told.append((piece.epoch, piece.events))
            known = self.suspects.pop((piece.epoch, piece.first, piece.last), None)
            assert (piece.suspect, piece.attempts) == ((True, known.attempts) if known else (False, 0))
        for epoch, events in told:
            before = self.heard.get(epoch, EMPTY)
            assert not before & events, "an event was reported twice"
            assert events.issubset(self.given[epoch])
            self.heard[epoch] = before | events

    @rule()
    def stop(self) -> None:
        """Near the end nothing new is started."""
        if self.next_event > 150:
            self.work.stop()
            assert self.work.stopped
            assert self.work.want() is None
            assert self.work.next_command(0, self.now) is None

    def teardown(self) -> None:
        """When all ends, every event that was given has been heard of once."""
        self.work.stop()
        for slot in range(SLOTS):
            self.die(slot)
        assert not self.work.in_hand
        if report := self.work.report():
            self._hear(report)
        assert self.heard == self.given


TestNodeWork = NodeMachine.TestCase
TestNodeWork.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


def test_a_revoked_epoch_is_dropped_unless_a_worker_has_it() -> None:
    """Forgetting an epoch leaves others as they are."""
    work = node_work()
    assert work.want() is not None
    pieces = Piece(epoch=1, first=0, last=10), Piece(epoch=2, first=0, last=10)
    work.add(Chunk(pieces=pieces, left=0))
    work.forget((1,))
    commanded = work.next_command(0, 0.0)
    assert commanded is not None
    assert commanded.epoch == 2
    work.stop()
    report = work.report()
    assert report is not None
    assert [p.epoch for p in report.back] == [2]


def test_nothing_starts_that_cannot_end() -> None:
    """Shortly before the deadline the node stops and gives its work back."""
    work = node_work(deadline=10.0, prior=4.0)
    work.want()
    work.add(Chunk(pieces=(Piece(epoch=1, first=0, last=10),), left=0))
    assert work.next_command(0, 1.0) is not None
    assert work.next_command(1, 5.0) is None
    assert work.stopped
    report = work.report()
    assert report is not None
    assert sum(len(p.events) for p in report.back) == 9


def test_neighbours_of_a_dead_workers_range_keep_their_attempts() -> None:
    """Suspect events that touch each other do not become one when their worker dies."""
    work = node_work(prior=0.001)
    work.want()
    suspects = tuple(Piece(epoch=1, first=i, last=i + 1, attempts=i, suspect=True) for i in range(3))
    work.add(Chunk(pieces=suspects, left=0))
    for _ in suspects:
        assert work.next_command(0, 0.0) is not None
    work.failed(0, 1, 1, 2, "the worker was ended", 0.0)
    work.vacate(0, 0.0)
    commands = [work.next_command(1, 0.0) for _ in range(2)]
    assert sorted((c.first, c.last) for c in commands if c) == [(0, 1), (2, 3)]
    work.failed(1, 1, 2, 3, "no", 0.0)
    report = work.report()
    assert report is not None
    assert [(f.piece.first, f.piece.attempts) for f in report.failed] == [(1, 1), (2, 2)]


def test_an_event_reported_twice_is_refused() -> None:
    """A worker that says the same event twice in one message is not believed."""
    work = node_work(prior=0.001)
    work.want()
    work.add(Chunk(pieces=(Piece(epoch=1, first=0, last=10, suspect=True),), left=0))
    assert work.next_command(0, 0.0) is not None
    with pytest.raises(CorruptData, match="twice"):
        work.results(0, entries_of(1, [(0, 6), (5, 10)]), 0.0)
