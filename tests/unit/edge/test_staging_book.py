"""The plan of what is to be copied: in order, once, again after a pause, given up in the end."""

from __future__ import annotations

import pytest
from hpcpanda_edge.staging.book import KEPT_S, Book, Retry, Unit
from hpcpanda_edge.staging.places import Source
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hpcpanda.domain.intervals import EMPTY, EventRange, IntervalSet

span = IntervalSet.span
FILES = (
    Source(number=0, path="/a", cover=EventRange(0, 10)),
    Source(number=1, path="/b", cover=EventRange(10, 30)),
    Source(number=2, path="/c", cover=EventRange(30, 31)),
)
JOBS = (
    Source(number=0, path="/d/{job}", cover=EventRange(0, 8)),
    Source(number=1, path="/common", cover=EventRange(0, 8)),
)


def book(sources: tuple[Source, ...], needed: IntervalSet) -> Book:
    b = Book(sources, Retry())
    b.need(needed)
    return b


def test_only_files_of_events_that_are_here_are_copied_in_order() -> None:
    """An event is ready as soon as its file is there; files without events here are left alone."""
    b = book(FILES, span(5, 12))
    assert b.missing() == 2
    assert b.next(0.0) == Unit(0, 0)
    b.began(Unit(0, 0))
    assert b.next(0.0) == Unit(10, 1)
    b.began(Unit(10, 1))
    assert b.next(0.0) is None
    assert b.ready() == EMPTY
    b.arrived(Unit(10, 1))
    assert b.ready() == span(10, 12)
    b.arrived(Unit(0, 0))
    assert b.ready() == span(5, 12)
    assert b.waiting() is None


def test_a_job_is_ready_when_all_its_files_are_there() -> None:
    """Its own and those of all; the lowest job comes first."""
    b = book(JOBS, span(2, 4))
    assert b.next(0.0) == Unit(0, 1), "the common file counts as that of the first job"
    b.began(Unit(0, 1))
    assert b.next(0.0) == Unit(2, 0)
    b.began(Unit(2, 0))
    b.arrived(Unit(2, 0))
    assert b.ready() == EMPTY
    b.arrived(Unit(0, 1))
    assert b.ready() == span(2, 3)
    assert b.next(0.0) == Unit(3, 0)
    assert b.next(0.0, avoid={"/d/3"}) is None


def test_a_failure_is_tried_again_after_longer_and_longer_pauses_and_then_is_a_fault() -> None:
    """Others go on meanwhile; the fault names file, reason and number of tries."""
    b = book(FILES, span(0, 12))
    now, pauses = 0.0, []
    while b.fault is None:
        unit = b.next(now, avoid={"/b"})
        if unit is None:
            later = b.next_look(now)
            assert later is not None
            assert b.next(now) == Unit(10, 1), "the other file is not held up"
            pauses.append(later - now)
            now = later
            continue
        b.began(unit)
        b.failed(unit, "/a: Input/output error", now)
    assert pauses == [5.0, 20.0, 80.0, 320.0]
    assert b.fault == "an input cannot be staged, tried 5 times: /a: Input/output error"
    assert b.next(now + 1e6) is None


def test_what_cannot_get_better_is_a_fault_at_once() -> None:
    """A folder does not become a file by waiting."""
    b = book(FILES, span(0, 1))
    b.began(Unit(0, 0))
    b.failed(Unit(0, 0), "/a: is a folder", 0.0, final=True)
    assert b.fault == "an input cannot be staged: /a: is a folder"


def test_want_of_room_is_never_a_fault() -> None:
    """It only delays, and says so."""
    b = book(FILES, span(0, 1))
    for turn in range(100):
        now = 30.0 * turn
        assert b.next(now) == Unit(0, 0)
        b.began(Unit(0, 0))
        b.delayed(Unit(0, 0), "no room for /a", now)
        assert b.next(now + 29.9) is None
        assert b.short
    assert b.fault is None
    assert b.waiting() == "1 input file is still to be copied; no room for /a"
    b.need(span(10, 11))
    assert not b.short, "nobody waits for that file any more"


def test_copies_of_jobs_go_when_the_job_is_over_files_of_events_stay_a_while() -> None:
    """The next lease may begin in the middle of the same file; not when room is wanted."""
    jobs = book(JOBS, span(0, 8))
    for job in range(8):
        jobs.found(JOBS[0], span(job, job + 1))
    jobs.need(span(2, 5))
    assert jobs.superfluous(0.0) == {0: span(0, 2) | span(5, 8)}
    files = book(FILES, span(0, 31))
    for source in FILES:
        files.found(source, span(source.cover.first, source.cover.last))
    files.need(span(29, 31))
    assert files.superfluous(0.0) == {}
    assert files.superfluous(1.0, at_once=True) == {0: span(0, 10)}
    assert files.superfluous(KEPT_S - 0.1) == {}
    assert files.superfluous(KEPT_S) == {0: span(0, 10)}
    files.removing(0, span(0, 10))
    files.need(span(0, 31))
    assert files.next(KEPT_S) is None, "not while it is being removed"
    files.removed(0, span(0, 10))
    assert files.next(KEPT_S) == Unit(0, 0)


@given(failures=st.integers(1, 10_000))
def test_pauses_are_bounded(failures: int) -> None:
    """However often something fails."""
    assert 5.0 <= Retry().pause(failures) <= 900.0


SETS = st.builds(
    lambda a, b, c, d: IntervalSet.span(min(a, b), max(a, b)) | IntervalSet.span(min(c, d), max(c, d)),
    *[st.integers(0, 8)] * 4,
)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, against a model of plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.sources = (
            *JOBS,
            Source(number=2, path="/e/{job}", cover=EventRange(0, 8)),
        )
        self.book = Book(self.sources, Retry(attempts=4, first_s=1.0, factor=2.0, room_s=1.0))
        self.there: set[tuple[int, int]] = set()
        self.running: list[Unit] = []
        self.removals: list[tuple[int, IntervalSet]] = []
        self.failures: dict[Unit, int] = {}

    def numbers(self, source: int, events: IntervalSet) -> set[tuple[int, int]]:
        return {(source, e) for r in events.ranges() for e in range(r.first, r.last)}

    @rule(needed=SETS)
    def need(self, needed: IntervalSet) -> None:
        self.book.need(needed)
        for unit in list(self.failures):
            if not needed & self.book._span(unit):
                del self.failures[unit]

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 700.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def start(self) -> None:
        unit = self.book.next(self.now)
        if unit is not None:
            source = self.sources[unit.source]
            mine = source.unit(unit.first)
            assert unit not in self.running
            assert self.book.needed.overlaps(mine.first, mine.last)
            assert (unit.source, unit.first) not in self.there
            assert not any(n == unit.source and unit.first in events for n, events in self.removals)
            self.book.began(unit)
            self.running.append(unit)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["arrived", "arrived", "failed", "delayed", "stopped"]))
    def end(self, data: st.DataObject, how: str) -> None:
        unit = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        match how:
            case "arrived":
                self.book.arrived(unit)
                self.there |= self.numbers(unit.source, self.book._span(unit))
                self.failures.pop(unit, None)
            case "failed":
                self.book.failed(unit, "x", self.now)
                self.failures[unit] = self.failures.get(unit, 0) + 1
            case "delayed":
                self.book.delayed(unit, "no room", self.now)
            case _:
                self.book.stopped(unit)

    @rule(at_once=st.booleans())
    def clean(self, at_once: bool) -> None:
        for source, events in self.book.superfluous(self.now, at_once=at_once).items():
            gone = self.numbers(source, events)
            assert gone <= self.there
            if self.sources[source].each:
                assert not events & self.book.needed
            else:
                assert not self.book.needed
            self.there -= gone
            self.book.removing(source, events)
            self.removals.append((source, events))

    @precondition(lambda self: self.removals)
    @rule()
    def cleaned(self) -> None:
        self.book.removed(*self.removals.pop(0))

    @invariant()
    def ready_is_what_has_all_files(self) -> None:
        for job in range(8):
            whole = all((s.number, job) in self.there for s in self.sources)
            assert (job in self.book.ready()) == (job in self.book.needed and whole)

    @invariant()
    def it_waits_for_something_or_works_or_is_done(self) -> None:
        idle = not self.running and not self.removals and self.book.next(self.now) is None
        if idle and self.book.fault is None and self.book.missing():
            assert self.book.next_look(self.now) is not None
        assert (self.book.ready() == self.book.needed) == (self.book.missing() == 0)

    @invariant()
    def four_failures_are_a_fault(self) -> None:
        if any(n >= 4 for n in self.failures.values()):
            assert self.book.fault is not None


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_million_jobs_cost_no_more_than_their_fragments() -> None:
    """Accounts of a task of jobs are interval sets."""
    jobs = (Source(number=0, path="/d/{job}", cover=EventRange(0, 10**9)),)
    b = book(jobs, span(0, 10**6))
    b.found(jobs[0], span(0, 999_999))
    assert b.next(0.0) == Unit(999_999, 0)
    assert b.missing() == 1
    assert b.ready() == span(0, 999_999)


@pytest.mark.parametrize("needed", [EMPTY, span(40, 50)])
def test_nothing_needed_is_nothing_to_do(needed: IntervalSet) -> None:
    """Events without inputs are ready at once."""
    b = book(FILES, needed)
    assert b.next(0.0) is None
    assert b.ready() == needed
