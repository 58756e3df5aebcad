"""The ledger: who may work on which events, and what has become of them.

The dispatcher leases a task's events to edges; an edge leases what it holds to the packs of its allocations. (Inside a
pack, whose coordinator lives no longer than its agents, sets of events without leases do.) A lease's *epoch* is a
fencing token: epochs of one ledger only grow, and a commit is judged by what its own epoch still
holds, so a late writer can never touch events that somebody else has been given since.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue, LeaseLost
from hpcpanda.domain.failures import FailureFacts
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.validation import MAX_EVENTS, plain_text, require_between

ERROR_TEXT_LIMIT = 2000
"""Longest error text kept of a failed event, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedEvent:
    """One event set aside for good, with the reason: what a task may lose is listed event by event."""

    event: int
    error: str
    """What the payload said, at most ``ERROR_TEXT_LIMIT`` characters."""
    attempts: int = 1
    """How often the event was tried alone."""
    facts: FailureFacts | None = None
    """What else is known of its last failure."""

    __pydantic_config__: ClassVar = {"extra": "forbid", "use_attribute_docstrings": True}

    def __post_init__(self) -> None:
        require_between("event", self.event, 0, MAX_EVENTS - 1)
        require_between("attempts", self.attempts, 1, 10_000)
        object.__setattr__(self, "error", plain_text(self.error, ERROR_TEXT_LIMIT))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What became of a commit: ``accepted`` is recorded (now or by an earlier copy of the same
    message), ``refused`` is not and never will be under this epoch."""

    accepted: IntervalSet
    """All events of the request that stand recorded under this lease."""
    new: IntervalSet
    """The part of ``accepted`` that this very call recorded."""
    refused: IntervalSet
    """Events that this epoch does not hold (expired, returned, or never granted)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLease:
    """The right of ``holder`` to work on events until it expires.

    ``outstanding`` and ``committed`` are disjoint subsets of ``granted``; what is in neither was
    returned or has expired. A lease with nothing outstanding is *closed*; it stays on record so
    that a repeated commit is answered as the first was.
    """

    epoch: int
    holder: str
    granted: IntervalSet
    outstanding: IntervalSet
    committed: IntervalSet = EMPTY
    expires: float
    """Seconds on the clock of whoever keeps the ledger."""

    @property
    def closed(self) -> bool:
        """Whether the holder has nothing left to do under this lease."""
        return not self.outstanding

    def renew(self, expires: float) -> EventLease:
        """Put the expiry off; never earlier than it was.

        Raises:
            LeaseLost: nothing is outstanding: the lease was finished, returned or expired.
        """
        if self.closed:
            raise LeaseLost(
                f"the lease with epoch {self.epoch} has ended; stop work under it and acquire a new one"
            )
        return replace(self, expires=max(self.expires, expires))

    def commit(self, events: IntervalSet) -> tuple[EventLease, Settlement]:
        """Record events as finished. Idempotent; what the epoch no longer holds is refused."""
        new = events & self.outstanding
        accepted = new if new == events else new | (events & self.committed)
        lease = EventLease(
            epoch=self.epoch,
            holder=self.holder,
            granted=self.granted,
            outstanding=self.outstanding - new,
            committed=self.committed | new,
            expires=self.expires,
        )
        return lease, Settlement(accepted=accepted, new=new, refused=events - accepted)

    def give_back(self, events: IntervalSet) -> tuple[EventLease, IntervalSet]:
        """Return unprocessed events; gives the part that was in fact outstanding."""
        returned = events & self.outstanding
        return replace(self, outstanding=self.outstanding - returned), returned

    def validate(self) -> None:
        """Raise AssertionError when the lease contradicts itself."""
        assert not (self.outstanding & self.committed), "outstanding and committed overlap"
        assert (self.outstanding | self.committed).issubset(self.granted), "holds more than granted"


@dataclass(slots=True, kw_only=True)
class EventLedger:
    """All accounts of one event space: every event is in exactly one of *ready*, *leased*, *done*
    and *failed*.

    Mutable, but each method either does all it says or raises and changes nothing. Its size grows
    with fragments and leases, never with events.
    """

    space: IntervalSet
    ready: IntervalSet
    leases: dict[int, EventLease] = field(default_factory=dict)
    done: IntervalSet = EMPTY
    failed: dict[int, FailedEvent] = field(default_factory=dict)
    next_epoch: int = 1

    @classmethod
    def over(cls, space: IntervalSet) -> EventLedger:
        """A fresh ledger: all events ready."""
        return cls(space=space, ready=space)

    @property
    def leased(self) -> IntervalSet:
        """Events outstanding under any lease."""
        total = EMPTY
        for lease in self.leases.values():
            total |= lease.outstanding
        return total

    @property
    def finished(self) -> bool:
        """Whether every event is done or failed."""
        return len(self.done) + len(self.failed) == len(self.space)

    def grant(
        self, *, holder: str, limit: int, expires: float, among: IntervalSet | None = None
    ) -> EventLease | None:
        """Lease the first ``limit`` ready events, of those ``among`` if said, under a new epoch; None when there are
        none."""
        able = self.ready if among is None else self.ready & among
        taken, _ = able.take(limit)
        if not taken:
            return None
        lease = EventLease(
            epoch=self.next_epoch, holder=holder, granted=taken, outstanding=taken, expires=expires
        )
        self.ready -= taken
        self.leases[lease.epoch] = lease
        self.next_epoch += 1
        return lease

    def lease_of(self, epoch: int, holder: str) -> EventLease:
        """The lease with this epoch, if it is the holder's.

        Raises:
            LeaseLost: no such epoch, or it is somebody else's.
        """
        lease = self.leases.get(epoch)
        if lease is None or lease.holder != holder:
            raise LeaseLost(f"{holder} holds no lease with epoch {epoch}")
        return lease

    def renew(self, epoch: int, *, holder: str, expires: float) -> EventLease:
        """Put a lease's expiry off. Raises LeaseLost when it has ended."""
        lease = self.lease_of(epoch, holder).renew(expires)
        self.leases[epoch] = lease
        return lease

    def commit(
        self,
        epoch: int,
        *,
        holder: str,
        done: IntervalSet = EMPTY,
        failed: Iterable[FailedEvent] = (),
    ) -> Settlement:
        """Record events as done or failed under an epoch.

        Raises:
            InvalidValue: an event is reported both done and failed.
            LeaseLost: the holder has no lease with that epoch.
        """
        failures = {f.event: f for f in failed}
        lost = single_events(failures) if failures else EMPTY
        if lost and lost & done:
            raise InvalidValue("failed", f"events {lost & done} are reported done and failed at once")
        lease, settlement = self.lease_of(epoch, holder).commit(done | lost if lost else done)
        self.leases[epoch] = lease
        self.done |= settlement.new & done if lost else settlement.new
        if lost:
            self.failed |= {event: f for event, f in failures.items() if event in settlement.new}
        return settlement

    def give_back(self, epoch: int, *, holder: str, events: IntervalSet) -> IntervalSet:
        """Unprocessed events become ready again; gives those that were outstanding."""
        lease, returned = self.lease_of(epoch, holder).give_back(events)
        self.leases[epoch] = lease
        self.ready |= returned
        return returned

    def expire(self, now: float) -> list[EventLease]:
        """End every lease whose time is up: its outstanding events become ready. Gives those leases
        as they were."""
        late = [v for v in self.leases.values() if v.outstanding and v.expires <= now]
        for lease in late:
            self.give_back(lease.epoch, holder=lease.holder, events=lease.outstanding)
        return late

    def release(self, holder: str) -> IntervalSet:
        """Everything outstanding under any lease of ``holder`` becomes ready; gives those events."""
        total = EMPTY
        for lease in list(self.leases.values()):
            if lease.holder == holder:
                total |= self.give_back(lease.epoch, holder=holder, events=lease.outstanding)
        return total

    def forget_closed(self) -> None:
        """Drop closed leases, where no late message about them can arrive any more."""
        self.leases = {e: v for e, v in self.leases.items() if not v.closed}

    def validate(self) -> None:
        """Raise AssertionError unless every event is in exactly one account."""
        accounts = [self.ready, self.done, single_events(self.failed)]
        for lease in self.leases.values():
            lease.validate()
            accounts.append(lease.outstanding)
        union = EMPTY
        for account in accounts:
            assert not (union & account), "an event is in two accounts"
            union |= account
        assert union == self.space, "an event is in no account"


def single_events(events: Iterable[int]) -> IntervalSet:
    """The interval set of single events."""
    bounds: list[int] = []
    for event in sorted(set(events)):
        if bounds and bounds[-1] == event:
            bounds[-1] = event + 1
        else:
            bounds += (event, event + 1)
    return IntervalSet(tuple(bounds))
