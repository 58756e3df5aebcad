"""Whatever happens in whatever order, every event is in one account and is finished once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from hpcpanda.domain.errors import InvalidValue, LeaseLost
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLedger, FailedEvent, single_events

SPACE = 40
HOLDERS = st.sampled_from(["ann", "bob", "eve"])
some_events = st.sets(st.integers(0, SPACE - 1), max_size=20).map(single_events)


class LedgerMachine(RuleBasedStateMachine):
    """Random calls against a ledger and against a model that keeps a dictionary an event."""

    epochs = Bundle("epochs")
    commits = Bundle("commits")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = EventLedger.over(IntervalSet.span(0, SPACE))
        self.now = 0.0
        self.owner: dict[int, int] = {}  # event -> epoch that holds it
        self.finished: dict[int, int] = {}  # event -> epoch that finished it
        self.holders: dict[int, str] = {}
        self.expiry: dict[int, float] = {}

    @rule(target=epochs, holder=HOLDERS, limit=st.integers(0, 15), seconds=st.floats(0.5, 20))
    def grant(self, holder: str, limit: int, seconds: float) -> int:
        """A lease gets the first ready events and a new, higher epoch."""
        ready = self.ledger.ready
        highest = max(self.holders, default=0)
        lease = self.ledger.grant(holder=holder, limit=limit, expires=self.now + seconds)
        if lease is None:
            assert limit == 0 or not ready
            return 10_000
        assert lease.epoch > highest
        assert lease.granted == ready.take(limit)[0]
        self.holders[lease.epoch], self.expiry[lease.epoch] = holder, lease.expires
        for r in lease.granted.ranges():
            for event in range(r.first, r.last):
                assert event not in self.owner
                self.owner[event] = lease.epoch
        return lease.epoch

    @rule(target=commits, epoch=epochs, done=some_events, failed=some_events)
    def commit(
        self, epoch: int, done: IntervalSet, failed: IntervalSet
    ) -> tuple[int, IntervalSet, IntervalSet]:
        """Exactly what the epoch holds is recorded; the rest is refused and changes nothing."""
        failed = failed - done
        self._commit(epoch, done, failed)
        return epoch, done, failed

    @rule(message=commits)
    def commit_again(self, message: tuple[int, IntervalSet, IntervalSet]) -> None:
        """A message that arrives twice is answered again and records nothing it did not record."""
        self._commit(*message)

    @rule(message=consumes(commits))
    def commit_last_time(self, message: tuple[int, IntervalSet, IntervalSet]) -> None:
        """The very same message a moment later has nothing new."""
        self._commit(*message)
        epoch, done, failed = message
        if epoch in self.holders:
            failures = [
                FailedEvent(event=e, error="x") for r in failed.ranges() for e in range(r.first, r.last)
            ]
            again = self.ledger.commit(epoch, holder=self.holders[epoch], done=done, failed=failures)
            assert not again.new

    def _commit(self, epoch: int, done: IntervalSet, failed: IntervalSet) -> None:
        failures = [FailedEvent(event=e, error="x") for r in failed.ranges() for e in range(r.first, r.last)]
        holder = self.holders.get(epoch)
        if holder is None:
            with pytest.raises(LeaseLost):
                self.ledger.commit(epoch, holder="ann", done=done, failed=failures)
            return
        asked = done | failed
        held = single_events(e for e, k in self.owner.items() if k == epoch)
        before = single_events(e for e, k in self.finished.items() if k == epoch)
        settlement = self.ledger.commit(epoch, holder=holder, done=done, failed=failures)
        assert settlement.new == asked & held
        assert settlement.accepted == asked & (held | before)
        assert settlement.refused == asked - settlement.accepted
        for r in settlement.new.ranges():
            for event in range(r.first, r.last):
                assert event not in self.finished, "finished twice"
                self.finished[event] = epoch
                del self.owner[event]

    @rule(epoch=epochs, events=some_events)
    def commit_by_a_stranger(self, epoch: int, events: IntervalSet) -> None:
        """Nobody commits under another's epoch, and no event is done and failed at once."""
        with pytest.raises(LeaseLost):
            self.ledger.commit(epoch, holder="mallory", done=events)
        if events:
            both = [FailedEvent(event=events.bounds[0], error="x")]
            with pytest.raises(InvalidValue):
                self.ledger.commit(epoch, holder="ann", done=events, failed=both)

    @rule(epoch=epochs, seconds=st.floats(-5, 20))
    def renew(self, epoch: int, seconds: float) -> None:
        """A lease with something outstanding is put off, never shortened; another is lost."""
        if epoch not in self.holders or epoch not in self.owner.values():
            with pytest.raises(LeaseLost):
                self.ledger.renew(epoch, holder=self.holders.get(epoch, "ann"), expires=self.now + seconds)
            return
        lease = self.ledger.renew(epoch, holder=self.holders[epoch], expires=self.now + seconds)
        self.expiry[epoch] = max(self.expiry[epoch], self.now + seconds)
        assert lease.expires == self.expiry[epoch]

    @rule(epoch=epochs, events=some_events)
    def give_back(self, epoch: int, events: IntervalSet) -> None:
        """What was outstanding becomes ready again."""
        if epoch not in self.holders:
            return
        returned = self.ledger.give_back(epoch, holder=self.holders[epoch], events=events)
        held = single_events(e for e, k in self.owner.items() if k == epoch)
        assert returned == events & held
        self._free({epoch}, returned)

    @rule(seconds=st.floats(0, 8))
    def expire(self, seconds: float) -> None:
        """Time passes; leases whose time is up end, and only those."""
        self.now += seconds
        late = {lease.epoch for lease in self.ledger.expire(self.now)}
        open_epochs = set(self.owner.values())
        assert late == {e for e in open_epochs if self.expiry[e] <= self.now}
        self._free(late, self.ledger.space)

    @rule(holder=HOLDERS)
    def release(self, holder: str) -> None:
        """An edge that is gone holds nothing."""
        own = {e for e, h in self.holders.items() if h == holder}
        held = single_events(e for e, k in self.owner.items() if k in own)
        assert self.ledger.release(holder) == held
        self._free(own, held)

    def _free(self, epochs: set[int], events: IntervalSet) -> None:
        self.owner = {e: k for e, k in self.owner.items() if not (k in epochs and e in events)}

    @invariant()
    def accounts_agree(self) -> None:
        """The ledger contradicts neither itself nor the model."""
        self.ledger.validate()
        assert self.ledger.leased == single_events(self.owner)
        assert self.ledger.done | single_events(self.ledger.failed) == single_events(self.finished)
        assert not self.ledger.done & single_events(self.ledger.failed)
        assert self.ledger.finished == (len(self.finished) == SPACE)


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase


def test_a_late_writer_loses() -> None:
    """Events that expired and were leased again are refused from the first holder and counted from the second."""
    ledger = EventLedger.over(IntervalSet.span(0, 10))
    early = ledger.grant(holder="ann", limit=10, expires=5)
    assert early is not None
    ledger.commit(early.epoch, holder="ann", done=IntervalSet.span(0, 3))
    assert [v.epoch for v in ledger.expire(5)] == [early.epoch]
    late = ledger.grant(holder="bob", limit=10, expires=50)
    assert late is not None
    assert late.granted == IntervalSet.span(3, 10)
    told = ledger.commit(early.epoch, holder="ann", done=IntervalSet.span(0, 10))
    assert (told.accepted, told.new, told.refused) == (IntervalSet.span(0, 3), EMPTY, IntervalSet.span(3, 10))
    told = ledger.commit(late.epoch, holder="bob", done=IntervalSet.span(3, 10))
    assert told.new == IntervalSet.span(3, 10)
    assert ledger.finished
    ledger.forget_closed()
    assert not ledger.leases
    ledger.validate()
