"""Both ledgers of a simulated task, the dispatcher's and the edge's: the production code, called as the services do."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf

from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLedger
from hpcpanda.simulate.work.account import Account

_EDGE = "edge"
_FORGET_EVERY = 50
"""Closed leases of the dispatcher that are kept, at most."""


@dataclass(frozen=True, slots=True)
class _Hold:
    """What a pack has of one lease of the edge."""

    lease: int
    epoch: int


class Books:
    """Where every event, or job, of a task is."""

    def __init__(self, size: int, account: Account, unit_s: float) -> None:
        """``unit_s``: core-seconds of an event, for weighting."""
        self.ledger = EventLedger.over(IntervalSet.span(0, size))
        """The dispatcher's."""
        self.leases: dict[int, EventLedger] = {}
        """The edge's, by the epoch of the lease."""
        self.ready = 0
        """Here and in no pack."""
        self._account = account
        self._unit_s = unit_s
        self._leased_at: dict[int, float] = {}
        self._holds: dict[str, deque[_Hold]] = {}
        self._held: dict[str, int] = {}
        self._with_ready: dict[int, None] = {}
        """Leases of which something is ready, in the order in which it became so."""
        self._closed = 0

    def acquire(self, count: int, now: float) -> int:
        """Lease more from the dispatcher; gives how many came."""
        grant = self.ledger.grant(holder=_EDGE, limit=count, expires=inf)
        if grant is None:
            return 0
        self.leases[grant.epoch] = EventLedger.over(grant.granted)
        self._leased_at[grant.epoch] = now
        self._with_ready[grant.epoch] = None
        self.ready += len(grant.granted)
        return len(grant.granted)

    def held(self, holder: str) -> int:
        """Unfinished ones of a pack."""
        return self._held.get(holder, 0)

    def hand_out(self, holder: str, limit: int) -> int:
        """Give ready ones to a pack; gives how many."""
        given = 0
        while given < limit and self._with_ready:
            epoch = next(iter(self._with_ready))
            ledger = self.leases[epoch]
            local = ledger.grant(holder=holder, limit=limit - given, expires=inf)
            if local is not None:
                given += len(local.granted)
                self._holds.setdefault(holder, deque()).append(_Hold(epoch, local.epoch))
            if not ledger.ready:
                del self._with_ready[epoch]
        self.ready -= given
        self._held[holder] = self.held(holder) + given
        return given

    def finish(self, holder: str, count: int, now: float) -> None:
        """The first so many that a pack has are finished: enter and report them.

        Raises:
            AssertionError: a ledger refuses what should be its own.
        """
        self._held[holder] = self.held(holder) - count
        holds = self._holds.get(holder, deque())
        while count:
            hold = holds[0]
            ledger = self.leases[hold.lease]
            outstanding = ledger.leases[hold.epoch].outstanding
            done, rest = outstanding.take(count)
            count -= len(done)
            said = ledger.commit(hold.epoch, holder=holder, done=done)
            heard = self.ledger.commit(hold.lease, holder=_EDGE, done=done)
            assert said.new == heard.new == done, "an event was finished twice"
            waited = now - self._leased_at[hold.lease]
            self._account.turnarounds.append((waited, len(done) * self._unit_s))
            if not rest:
                holds.popleft()
                self._close(hold.lease)

    def release(self, holder: str) -> None:
        """What a pack that is gone did not finish is ready again."""
        for hold in self._holds.pop(holder, ()):
            ledger = self.leases[hold.lease]
            outstanding = ledger.leases[hold.epoch].outstanding
            returned = ledger.give_back(hold.epoch, holder=holder, events=outstanding)
            self.ready += len(returned)
            if returned:
                self._with_ready[hold.lease] = None
            ledger.forget_closed()
        self._held.pop(holder, None)

    def give_back(self) -> None:
        """Return all ready ones to the dispatcher."""
        if not self.ready:
            return
        for epoch in self._with_ready:
            ledger = self.leases[epoch]
            ready, ledger.ready = ledger.ready, EMPTY
            ledger.space -= ready
            self.ledger.give_back(epoch, holder=_EDGE, events=ready)
            self._close(epoch)
        self._with_ready.clear()
        self.ready = 0

    def _close(self, epoch: int) -> None:
        """Drop a lease of which nothing is left to do."""
        ledger = self.leases[epoch]
        ledger.forget_closed()
        if ledger.ready or ledger.leases:
            return
        del self.leases[epoch], self._leased_at[epoch]
        self._closed += 1
        if self._closed >= _FORGET_EVERY:
            self.ledger.forget_closed()
            self._closed = 0

    def validate(self) -> None:
        """Raise AssertionError unless every event is in exactly one account, at both."""
        self.ledger.validate()
        for epoch, ledger in self.leases.items():
            ledger.validate()
            lease = self.ledger.leases[epoch]
            assert lease.outstanding == ledger.space - ledger.done, "edge and dispatcher disagree"
