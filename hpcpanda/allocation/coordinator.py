"""The coordinator of a pack's events: which go to which node agent, what becomes of failed ranges, when all is done.

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
from hpcpanda.allocation.plan import LeasedEvents, TaskProgress, TaskWork
from hpcpanda.domain.failures import FailureFacts
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
    """Rank 0's account of the events of one task."""

    def __init__(self, work: TaskWork, *, ranks: int, cores: int, now: float) -> None:
        """``cores``: of a node."""
        self._work = work
        self._ranks = ranks
        self._cores = cores
        self._pending: dict[int, IntervalSet] = {}
        self._outstanding: dict[int, IntervalSet] = {}
        self._suspects: deque[Piece] = deque()
        self._hungry: dict[int, int] = {}
        self._byes: dict[int, Bye] = {}
        self._draining = False
        self._schema: Schema | None = None
        self._cost = CostModel(
            prior=work.event_seconds or work.spec.resources.event_seconds, cores=ranks * cores
        )
        self._done = 0
        self._recent = 0
        self._recent_since = now
        self._rate = 0.0
        self._add(work.events)

    @property
    def task_id(self) -> int:
        """Whose events they are."""
        return self._work.task_id

    @property
    def again(self) -> bool:
        """Whether it ended for a reason that another start may not meet."""
        return self.ended and any(b.again for b in self._byes.values())

    @property
    def setbacks(self) -> tuple[str, ...]:
        """What has ended agents in a way that another start may not meet."""
        return tuple(b.error for b in self._byes.values() if b.again and b.error)

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written on some node; None while all is well."""
        return next(
            (b.error for b in self._byes.values() if b.error and not (b.payload_fault or b.again)), None
        )

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

    def top_up(self, events: Iterable[LeasedEvents]) -> list[Send]:
        """Take more events."""
        self._add(events)
        return self._feed()

    def revoke(self, epochs: tuple[int, ...]) -> list[Send]:
        """Stop working under these epochs."""
        for epoch in epochs:
            self._pending.pop(epoch, None)
            self._outstanding.pop(epoch, None)
        self._suspects = deque(p for p in self._suspects if p.epoch not in epochs)
        return self._to_all(Forget(epochs=epochs))

    def drain(self, grace_s: float) -> list[Send]:
        """Hand out nothing more; every agent finishes within the grace time and says bye."""
        self._draining = True
        self._pending.clear()
        self._suspects.clear()
        return self._to_all(Finish(grace_s=grace_s))

    def from_agent(self, rank: int, message: ToCoordinator) -> list[Send]:
        """Act on a message of an agent."""
        match message:
            case Want():
                self._hungry[rank] = message.events
                return self._feed()
            case Report():
                return self._on_report(message)
            case Columns():
                if self._schema is None:
                    self._schema = message.schema
                return self._to_all(Columns(schema=self._schema))
            case Bye():
                self._byes[rank] = message
                self._hungry.pop(rank, None)
                broken = message.error is not None and not self._draining
                return self.drain(1.0) if broken else []

    def progress(self, now: float, *, cores: int, cores_busy: float) -> TaskProgress:
        """How the task is doing on so many cores of the pack; restarts the rate's window."""
        elapsed = now - self._recent_since
        if elapsed >= 0.5:
            weight = min(1.0, elapsed / _RATE_MEMORY_S)
            self._rate += weight * (self._recent / elapsed - self._rate)
            self._recent, self._recent_since = 0, now
        cost = self._cost.event_seconds
        fault = any(b.payload_fault for b in self._byes.values())
        return TaskProgress(
            task_id=self.task_id,
            state="failed" if fault else "ended" if self.ended else "running",
            done=self._done,
            per_second=self._rate,
            event_seconds=cost,
            cores=cores,
            cores_busy=cores_busy,
            waiting=self.left,
            backlog_s=self.left * (cost or 1.0) / max(1, cores),
            idle=self.idle,
            error=next((b.error for b in self._byes.values() if b.error and not b.again), None),
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

    def _on_report(self, report: Report) -> list[Send]:
        done = sum(self._settle(part) for part in report.done)
        self._done += done
        self._recent += done
        if done:
            self._cost.observe(done, report.seconds, done)
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
        if attempts < self._work.spec.loss.attempts:
            self._suspects.append(replace(piece, attempts=attempts, suspect=True))
            return []
        facts = FailureFacts(node=failure.node) if failure.node is not None else None
        event = FailedEvent(event=piece.first, error=failure.error, attempts=attempts, facts=facts)
        return [Send(0, SetAside(epoch=piece.epoch, event=event))]
