"""The pack's coordinator: which events go to which node agent, what becomes of failed ranges, when the pack ends.

A state machine without I/O: messages in, messages out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

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
    ToAgent,
    ToCoordinator,
    Want,
)
from hpcpanda.allocation.plan import Drain, EventPack, LeasedEvents, PackStatus, Revoke, TopUp
from hpcpanda.domain.intervals import EMPTY, EventRange, IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.columns import Schema
from hpcpanda.events.streaming import CostModel, share

_RATE_MEMORY_S = 5.0


@dataclass(frozen=True, slots=True)
class Send:
    """A message for the agent of a rank."""

    rank: int
    message: ToAgent


class Coordinator:
    """Rank 0's account of a pack's events."""

    def __init__(self, pack: EventPack, *, incarnation: int, cores: int, now: float) -> None:
        self._pack = pack
        self._ranks = pack.nodes
        self._cores = cores
        self._pending: dict[int, IntervalSet] = {}
        self._outstanding: dict[int, IntervalSet] = {}
        self._suspects: deque[Piece] = deque()
        self._hungry: dict[int, int] = {}
        self._byes: dict[int, Bye] = {}
        self._draining = False
        self._schema: Schema | None = None
        self._cost = CostModel(prior=pack.event_seconds or pack.spec.resources.event_seconds)
        self._done = 0
        self._recent = 0
        self._recent_since = now
        self._rate = 0.0
        self._occupancy: dict[int, tuple[float, ...]] = {}
        self._incarnation = incarnation
        self._add(pack.events)

    @property
    def ended(self) -> bool:
        """Whether every agent has said bye."""
        return len(self._byes) == self._ranks

    @property
    def left(self) -> int:
        """Events not yet handed out."""
        return sum(map(len, self._pending.values())) + sum(p.last - p.first for p in self._suspects)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to hand out and nothing in hand."""
        return not self.left and not any(self._outstanding.values())

    def from_head(self, message: TopUp | Revoke | Drain) -> list[Send]:
        """Act on a message of the head."""
        match message:
            case TopUp():
                self._add(message.events)
                return self._feed()
            case Revoke():
                for epoch in message.epochs:
                    self._pending.pop(epoch, None)
                    self._outstanding.pop(epoch, None)
                self._suspects = deque(p for p in self._suspects if p.epoch not in message.epochs)
                return self._to_all(Forget(epochs=message.epochs))
            case Drain():
                self._draining = True
                self._pending.clear()
                self._suspects.clear()
                return self._to_all(Finish(grace_s=message.grace_s))

    def from_agent(self, rank: int, message: ToCoordinator) -> list[Send]:
        """Act on a message of an agent."""
        match message:
            case Want():
                self._hungry[rank] = message.events
                return self._feed()
            case Report():
                return self._on_report(rank, message)
            case Columns():
                if self._schema is None:
                    self._schema = message.schema
                return self._to_all(Columns(schema=self._schema))
            case Bye():
                self._byes[rank] = message
                self._hungry.pop(rank, None)
                broken = message.error is not None and not self._draining
                return self.from_head(Drain(grace_s=1.0)) if broken else []

    def status(self, now: float) -> PackStatus:
        """How the pack is doing; restarts the rate's window."""
        elapsed = now - self._recent_since
        if elapsed >= 0.5:
            weight = min(1.0, elapsed / _RATE_MEMORY_S)
            self._rate += weight * (self._recent / elapsed - self._rate)
            self._recent, self._recent_since = 0, now
        occupancy = tuple(o for rank in range(self._ranks) for o in self._occupancy.get(rank, ()))
        cost = self._cost.event_seconds
        error = next((b.error for b in self._byes.values() if b.error), None)
        fault = any(b.payload_fault for b in self._byes.values())
        over = self.ended and not any(b.again for b in self._byes.values())
        return PackStatus(
            pack_id=self._pack.pack_id,
            task_id=self._pack.task_id,
            state="failed" if fault else "ended" if over else "running",
            incarnation=self._incarnation,
            cores=self._cores * self._ranks,
            cores_busy=sum(occupancy),
            occupancy=occupancy,
            events_done=self._done,
            events_per_second=self._rate,
            event_seconds=cost,
            backlog_s=self.left * (cost or 1.0) / (self._cores * self._ranks),
            idle=self.idle,
            error=error,
        )

    def _add(self, events: Iterable[LeasedEvents]) -> None:
        if self._draining:
            return
        for leased in events:
            held = self._pending.get(leased.epoch, EMPTY) | self._outstanding.get(leased.epoch, EMPTY)
            self._pending[leased.epoch] = self._pending.get(leased.epoch, EMPTY) | (leased.events - held)

    def _to_all(self, message: ToAgent) -> list[Send]:
        return [Send(rank, message) for rank in range(self._ranks) if rank not in self._byes]

    def _feed(self) -> list[Send]:
        """Answer every waiting agent that can be given something."""
        sends: list[Send] = []
        for rank, want in list(self._hungry.items()):
            pieces = self._take(want)
            if not pieces:
                break
            del self._hungry[rank]
            sends.append(Send(rank, Chunk(pieces=tuple(pieces), left=self.left)))
        return sends

    def _take(self, want: int) -> list[Piece]:
        if self._suspects:
            pieces = [self._suspects.popleft()]
        else:
            pieces = []
            missing = share(want, self.left, self._ranks)
            for epoch in list(self._pending):
                taken, rest = self._pending[epoch].take(missing)
                pieces += [Piece(epoch=epoch, first=r.first, last=r.last) for r in taken.ranges()]
                missing -= len(taken)
                if rest:
                    self._pending[epoch] = rest
                else:
                    del self._pending[epoch]
                if missing <= 0:
                    break
        for p in pieces:
            self._outstanding[p.epoch] = self._outstanding.get(p.epoch, EMPTY).add(p.first, p.last)
        return pieces

    def _on_report(self, rank: int, report: Report) -> list[Send]:
        done = sum(self._settle(part) for part in report.done)
        self._done += done
        self._recent += done
        if done:
            self._cost.observe(done, report.seconds, done)
        if report.occupancy:
            self._occupancy[rank] = report.occupancy
        for part in report.back:
            if self._settle(part) and not self._draining:
                self._pending[part.epoch] = self._pending.get(part.epoch, EMPTY) | part.events
        aside = [s for f in report.failed for s in self._on_failure(f)]
        return aside + self._feed()

    def _settle(self, part: LeasedEvents) -> int:
        """Take events out of what is in hand; 0 for a revoked epoch."""
        before = self._outstanding.get(part.epoch)
        if before is None:
            return 0
        after = before - part.events
        self._outstanding[part.epoch] = after
        return len(before) - len(after)

    def _on_failure(self, failure: FailedPiece) -> list[Send]:
        """Halve the range until the guilty event is alone, try that again, then set it aside."""
        piece = failure.piece
        span = EventRange(piece.first, piece.last)
        if not self._settle(LeasedEvents(epoch=piece.epoch, events=IntervalSet.of((span,)))):
            return []
        if self._draining:
            return []
        if len(span) > 1:
            self._suspects.extend(
                Piece(epoch=piece.epoch, first=h.first, last=h.last, suspect=True) for h in span.halves()
            )
            return []
        attempts = piece.attempts + 1
        if attempts < self._pack.spec.loss.attempts:
            self._suspects.append(replace(piece, attempts=attempts, suspect=True))
            return []
        event = FailedEvent(event=piece.first, error=failure.error, attempts=attempts)
        return [Send(0, SetAside(epoch=piece.epoch, event=event))]
