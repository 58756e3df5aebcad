"""Whatever agents report in whatever order, each event is in exactly one place, and only guilty ones are set aside."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hpcpanda.allocation.coordinator import Coordinator, Send
from hpcpanda.allocation.messages import (
    Bye,
    Chunk,
    Columns,
    FailedPiece,
    Finish,
    Forget,
    Piece,
    Report,
    SetAside,
    Want,
)
from hpcpanda.allocation.plan import LeasedEvents
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.events.columns import BYTES
from tests.support.allocation import event_pack

RANKS = 3
ATTEMPTS = 2
ranks = st.integers(0, RANKS - 1)

Key = tuple[int, int]


def guilty(event: int) -> bool:
    """Events that fail whenever they are tried."""
    return event % 13 == 5


def part(piece: Piece) -> LeasedEvents:
    """A piece as part of a report."""
    return LeasedEvents(epoch=piece.epoch, events=piece.events)


class CoordinatorMachine(RuleBasedStateMachine):
    """Pretended agents that hold pieces, and a dictionary that knows where each event is."""

    def __init__(self) -> None:
        super().__init__()
        (work,) = event_pack((1, 0, 60), attempts=ATTEMPTS).work
        self.coordinator = Coordinator(work, ranks=RANKS, cores=2, now=0.0)
        self.where: dict[Key, int | str] = {(1, e): "coordinator" for e in range(60)}
        self.held: list[list[Piece]] = [[] for _ in range(RANKS)]
        self.hungry: set[int] = set()
        self.left: set[int] = set()
        self.draining = False
        self.next_event = 60
        self.epochs = [1]

    def put(self, piece: Piece, place: int | str) -> None:
        """Note where the events of a piece are from now on."""
        for event in range(piece.first, piece.last):
            if self.where[piece.epoch, event] != "gone":
                self.where[piece.epoch, event] = place

    def deliver(self, sends: list[Send]) -> None:
        """Give agents their messages."""
        for send in sends:
            match send.message:
                case Chunk(pieces=pieces):
                    assert send.rank in self.hungry
                    self.hungry.discard(send.rank)
                    assert pieces
                    for piece in pieces:
                        for event in range(piece.first, piece.last):
                            assert self.where[piece.epoch, event] == "coordinator"
                        self.put(piece, send.rank)
                        self.held[send.rank].append(piece)
                case SetAside(epoch=epoch, event=failed):
                    assert guilty(failed.event), "a neighbour was set aside"
                    assert failed.attempts == ATTEMPTS
                    assert self.where[epoch, failed.event] == "coordinator"
                    self.where[epoch, failed.event] = "aside"
                case Forget(epochs=epochs):
                    mine = self.held[send.rank]
                    self.held[send.rank] = [p for p in mine if p.epoch not in epochs]
                case Finish():
                    assert self.draining
                case Columns():
                    pass
            assert send.rank not in self.left or isinstance(send.message, SetAside)

    @precondition(lambda self: len(self.left) < RANKS)
    @rule(rank=ranks, events=st.integers(1, 40))
    def want(self, rank: int, events: int) -> None:
        """An agent asks, once until it is answered."""
        if rank not in self.left and rank not in self.hungry and not self.draining:
            self.hungry.add(rank)
            self.deliver(self.coordinator.from_agent(rank, Want(events=events)))

    @rule(rank=ranks, which=st.integers(0, 10), length=st.integers(1, 20))
    def work(self, rank: int, which: int, length: int) -> None:
        """An agent runs the begin of a piece; a suspect one whole."""
        if not self.held[rank]:
            return
        piece = self.held[rank].pop(which % len(self.held[rank]))
        ran = piece if piece.suspect else replace(piece, last=min(piece.last, piece.first + length))
        if ran.last < piece.last:
            self.held[rank].append(replace(piece, first=ran.last))
        if any(map(guilty, range(ran.first, ran.last))):
            self.put(ran, "gone" if self.draining else "coordinator")
            report = Report(failed=(FailedPiece(piece=ran, error="no"),))
        else:
            self.put(ran, "done")
            report = Report(done=(part(ran),), seconds=0.01 * (ran.last - ran.first))
        self.deliver(self.coordinator.from_agent(rank, report))

    @rule(rank=ranks)
    def give_back(self, rank: int) -> None:
        """An agent returns what it has not begun."""
        pieces, self.held[rank] = self.held[rank], []
        for piece in pieces:
            self.put(piece, "gone" if self.draining else "coordinator")
        self.deliver(self.coordinator.from_agent(rank, Report(back=tuple(map(part, pieces)))))

    @rule(length=st.integers(1, 30), again=st.booleans())
    def top_up(self, length: int, again: bool) -> None:
        """More events, under a new epoch or one that is known."""
        epoch = self.epochs[-1] if again and self.epochs else self.next_event
        first, self.next_event = self.next_event, self.next_event + length
        if epoch not in self.epochs:
            self.epochs.append(epoch)
        for event in range(first, first + length):
            self.where[epoch, event] = "gone" if self.draining else "coordinator"
        more = LeasedEvents(epoch=epoch, events=IntervalSet.span(first, first + length))
        self.deliver(self.coordinator.top_up((more,)))

    @precondition(lambda self: self.epochs and not self.draining)
    @rule()
    def same_top_up_again(self) -> None:
        """A message that comes twice does not double what is not finished yet."""
        epoch = self.epochs[-1]
        open_events = [
            e for (k, e), place in self.where.items() if k == epoch and place not in ("done", "aside")
        ]
        if open_events:
            more = LeasedEvents(epoch=epoch, events=IntervalSet.span(open_events[0], open_events[0] + 1))
            if not any(p.suspect for held in self.held for p in held) and not self._suspected():
                self.deliver(self.coordinator.top_up((more,)))

    def _suspected(self) -> bool:
        return any(guilty(e) for (_, e), place in self.where.items() if place == "coordinator")

    @rule(which=st.integers(0, 5))
    def revoke(self, which: int) -> None:
        """An epoch is taken away: nothing of it is handed out any more."""
        if not self.epochs or len(self.epochs) < 2:
            return
        epoch = self.epochs.pop(which % len(self.epochs))
        for key in self.where:
            if key[0] == epoch:
                self.where[key] = "gone"
        self.deliver(self.coordinator.revoke((epoch,)))

    @rule(rank=ranks)
    def columns(self, rank: int) -> None:
        """Columns seen by one agent reach all that are there."""
        sends = self.coordinator.from_agent(rank, Columns(schema=BYTES))
        assert {s.rank for s in sends} == set(range(RANKS)) - self.left
        self.deliver(sends)

    @precondition(lambda self: self.next_event > 200)
    @rule()
    def drain(self) -> None:
        """The end begins: nothing is handed out any more."""
        self.start_draining()
        self.deliver(self.coordinator.drain(1.0))

    def start_draining(self) -> None:
        """What nobody has in hand is given up."""
        self.draining = True
        for key, place in self.where.items():
            if place == "coordinator":
                self.where[key] = "gone"

    @precondition(lambda self: self.draining)
    @rule(rank=ranks)
    def bye(self, rank: int) -> None:
        """An agent has ended, and is told nothing any more."""
        if rank in self.left:
            return
        self.give_back(rank)
        self.left.add(rank)
        self.hungry.discard(rank)
        self.deliver(self.coordinator.from_agent(rank, Bye()))
        assert self.coordinator.ended == (len(self.left) == RANKS)

    @invariant()
    def the_account_agrees(self) -> None:
        """What the coordinator thinks is left is left, and it is idle exactly when nobody has anything."""
        at_home = sum(place == "coordinator" for place in self.where.values())
        in_hand = sum(isinstance(place, int) for place in self.where.values())
        assert self.coordinator.left == at_home
        assert self.coordinator.idle == (at_home + in_hand == 0)
        held = sum(p.last - p.first for pieces in self.held for p in pieces)
        assert held == in_hand

    def teardown(self) -> None:
        """If the agents go on, all events are done but the guilty ones, which are set aside."""
        if self.draining:
            return
        for _ in range(10_000):
            if self.coordinator.idle:
                break
            for rank in range(RANKS):
                self.want(rank, 20)
                self.work(rank, 0, 20)
        assert self.coordinator.idle
        for (_, event), place in self.where.items():
            assert place in ("gone", "aside" if guilty(event) else "done")
        done = sum(place == "done" for place in self.where.values())
        assert self.coordinator.progress(1.0, cores=6, cores_busy=0.0).done >= done


TestCoordinator = CoordinatorMachine.TestCase
TestCoordinator.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


def coordinator_of(*, ranks: int) -> Coordinator:
    """The coordinator of sixty events."""
    (work,) = event_pack((1, 0, 60)).work
    return Coordinator(work, ranks=ranks, cores=2, now=0.0)


def test_an_agent_that_breaks_ends_all_to_be_started_again() -> None:
    """A bye with a reason drains the others; another start may help."""
    coordinator = coordinator_of(ranks=2)
    sends = coordinator.from_agent(1, Bye(error="the fork server was ended by SIGKILL", again=True))
    assert [(s.rank, type(s.message)) for s in sends] == [(0, Finish)]
    assert not coordinator.again
    coordinator.from_agent(0, Bye())
    assert coordinator.ended
    assert coordinator.again
    assert coordinator.trouble is None
    said = coordinator.progress(1.0, cores=4, cores_busy=0.0)
    assert (said.state, said.error) == ("ended", None)
    assert coordinator.setbacks == ("the fork server was ended by SIGKILL",)


def test_a_payload_fault_fails_the_task() -> None:
    """A set-up that cannot succeed is the task's fault, a disk that refuses is not."""
    coordinator = coordinator_of(ranks=1)
    coordinator.from_agent(0, Bye(error="no module", payload_fault=True))
    said = coordinator.progress(1.0, cores=2, cores_busy=0.0)
    assert (said.state, said.error, coordinator.trouble) == ("failed", "no module", None)
    coordinator = coordinator_of(ranks=1)
    coordinator.from_agent(0, Bye(error="disk full"))
    assert coordinator.trouble == "disk full"


def test_the_rate_is_of_the_last_seconds() -> None:
    """The rate follows what was done lately."""
    coordinator = coordinator_of(ranks=1)
    coordinator.from_agent(0, Want(events=60))
    done = LeasedEvents(epoch=1, events=IntervalSet.span(0, 50))
    coordinator.from_agent(0, Report(done=(done,), seconds=1.0))
    said = coordinator.progress(5.0, cores=2, cores_busy=1.5)
    assert said.per_second == 10.0
    assert (said.cores_busy, said.done, said.event_seconds) == (1.5, 50, 0.02)
