"""What a node agent has in hand, and which worker runs what next. A state machine without I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from hpcpanda.allocation.messages import Chunk, FailedPiece, Piece, Report, Want, leased
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.task import RangePolicy
from hpcpanda.events.journal import Entries, events_of
from hpcpanda.events.streaming import CostModel

COMMAND_S: Final = 0.3
"""Ranges shorter than this go to a worker several at a time, about so many seconds of them."""

PREFETCH_S: Final = 0.15
"""A worker gets its next command when what it has is shorter than this."""

_HOLD_S: Final = 0.5
"""An agent keeps this much work for each core beside one range."""

_CAUTION: Final = 1.5
"""A range is started when this many times its expected time is left before the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Ranges for a worker: ``[first, last)`` in steps of ``step`` events."""

    epoch: int
    first: int
    last: int
    step: int
    latest_start: float


@dataclass(slots=True)
class SlotWork:
    """Events a worker has been given and not accounted for yet."""

    outstanding: dict[int, IntervalSet] = field(default_factory=dict)
    suspects: list[Piece] = field(default_factory=list)
    busy_since: float | None = None
    busy_s: float = 0.0

    @property
    def events(self) -> int:
        """Number of events outstanding."""
        return sum(map(len, self.outstanding.values()))

    def settle(self, epoch: int, events: IntervalSet) -> None:
        """Account for events.

        Raises:
            CorruptData: the worker was never given them.
        """
        held = self.outstanding.get(epoch, EMPTY)
        if not events.issubset(held):
            raise CorruptData(f"a worker reported events {events - held} that it was not given")
        rest = held - events
        if rest:
            self.outstanding[epoch] = rest
        else:
            self.outstanding.pop(epoch, None)


class NodeWork:
    """The work of one node."""

    def __init__(
        self,
        *,
        slots: int,
        cores_in_pack: int,
        policy: RangePolicy,
        prior: float | None,
        deadline: float,
        node: str | None = None,
    ) -> None:
        self._policy = policy
        self._cores_in_pack = cores_in_pack
        self._deadline = deadline
        self._node = node
        self._cost = CostModel(prior=prior, cores=slots)
        self._pool: deque[Piece] = deque()
        self._pool_events = 0
        self._left = 0
        self._waiting = False
        self._stopped = False
        self._reserved: frozenset[int] = frozenset()
        self._done: dict[int, IntervalSet] = {}
        self._back: dict[int, IntervalSet] = {}
        self._failed: list[FailedPiece] = []
        self._seconds = 0.0
        self.slots = [SlotWork() for _ in range(slots)]

    @property
    def stopped(self) -> bool:
        """Whether nothing new is started any more."""
        return self._stopped

    @property
    def _closed(self) -> bool:
        """Whether no worker is given anything."""
        return self._stopped or len(self._reserved) == len(self.slots)

    @property
    def hungry(self) -> bool:
        """Whether all work is with the workers and more was asked for."""
        return self._waiting and not self._pool

    @property
    def in_hand(self) -> bool:
        """Whether any worker has work."""
        return any(s.outstanding for s in self.slots)

    @property
    def has_failures(self) -> bool:
        """Whether the coordinator has not heard of a failure yet."""
        return bool(self._failed)

    @property
    def has_news(self) -> bool:
        """Whether there is something that the coordinator has not heard yet."""
        return bool(self._done or self._back or self._failed)

    def add(self, chunk: Chunk) -> None:
        """Take work from the coordinator."""
        self._waiting = False
        self._left = chunk.left
        for piece in chunk.pieces:
            self._put(piece)
        if self._closed:
            self._return_pool()

    def stop(self) -> None:
        """Start nothing new; what no worker has goes back."""
        self._stopped = True
        self._return_pool()

    def forget(self, epochs: tuple[int, ...]) -> None:
        """Drop work of these epochs that no worker has yet."""
        kept = [p for p in self._pool if p.epoch not in epochs]
        self._pool.clear()
        self._pool_events = 0
        for piece in kept:
            self._put(piece)

    def want(self) -> Want | None:
        """What to ask the coordinator for, when it is time to ask."""
        if self._waiting or self._stopped:
            return None
        cost = self._cost.event_seconds
        slots = len(self.slots) - len(self._reserved)
        if not slots:
            return None
        if cost is None:
            hold = slots
        else:
            hold = max(slots, int(slots * (_HOLD_S + self._policy.target_seconds) / cost))
        if self._pool_events * 2 > hold:
            return None
        self._waiting = True
        return Want(events=hold - self._pool_events)

    def next_command(self, slot: int, now: float) -> Command | None:
        """The next ranges for a worker, if it should get some now."""
        work = self.slots[slot]
        cost = self._cost.event_seconds
        if (
            slot in self._reserved
            or not self._pool
            or (work.outstanding and (cost is None or work.events * cost > PREFETCH_S))
        ):
            return None
        piece = self._pool[0]
        if piece.suspect:
            step = piece.last - piece.first
        else:
            left = (self._left + self._pool_events) / self._cores_in_pack
            step = self._cost.range_events(self._policy, left)
            if cost:
                step = min(step, max(1, int((self._deadline - now) / (_CAUTION * cost))))
        latest_start = self._deadline - _CAUTION * step * (cost or 0.0)
        if now > latest_start:
            self.stop()
            return None
        self._pool.popleft()
        if piece.suspect:
            work.suspects.append(piece)
            last = piece.last
        else:
            ranges = 1 if cost is None else max(1, round(COMMAND_S / (step * cost)))
            fair = int((self._left + self._pool_events) / self._cores_in_pack / 2)
            last = min(piece.last, piece.first + max(step, min(ranges * step, fair)))
        self._pool_events -= piece.last - piece.first
        if last < piece.last:
            self._put(replace(piece, first=last), front=True)
        work.outstanding[piece.epoch] = work.outstanding.get(piece.epoch, EMPTY).add(piece.first, last)
        if work.busy_since is None:
            work.busy_since = now
        return Command(epoch=piece.epoch, first=piece.first, last=last, step=step, latest_start=latest_start)

    def results(self, slot: int, entries: Entries, now: float) -> None:
        """A worker has finished ranges.

        Raises:
            CorruptData: they are not ranges it was given, each once.
        """
        work = self.slots[slot]
        epochs = entries["epoch"]
        for epoch in set(np.unique(epochs).tolist()):
            of_epoch = entries[epochs == epoch]
            events = events_of(of_epoch)
            if len(events) != int((of_epoch["last"] - of_epoch["first"]).sum()):
                raise CorruptData("a worker reported an event twice")
            work.settle(epoch, events)
            self._done[epoch] = self._done.get(epoch, EMPTY) | events
        lengths = entries["last"] - entries["first"]
        seconds = float(entries["wall_s"].sum(dtype=np.float64))
        self._cost.observe(int(lengths.sum()), seconds, int(lengths.max()))
        self._seconds += seconds
        self._after(work, now)

    def skipped(self, slot: int, epoch: int, first: int, last: int, now: float) -> None:
        """A worker gives back events that it had no time for."""
        work = self.slots[slot]
        events = IntervalSet.span(first, last)
        work.settle(epoch, events)
        self._give_back(epoch, events)
        self._after(work, now)

    def failed(self, slot: int, epoch: int, first: int, last: int, error: str, now: float) -> None:
        """The payload failed on a range: the coordinator decides what becomes of it."""
        work = self.slots[slot]
        work.settle(epoch, IntervalSet.span(first, last))
        suspect = next((s for s in work.suspects if (s.epoch, s.first, s.last) == (epoch, first, last)), None)
        if suspect is not None:
            work.suspects.remove(suspect)
        piece = suspect or Piece(epoch=epoch, first=first, last=last)
        self._failed.append(FailedPiece(piece=piece, error=error, node=self._node))
        self._after(work, now)

    def vacate(self, slot: int, now: float) -> None:
        """A worker is gone: what it had and nobody is blamed for can be run by others."""
        work = self.slots[slot]
        pieces = [s for s in work.suspects if s.events.issubset(work.outstanding.get(s.epoch, EMPTY))]
        for suspect in pieces:
            work.settle(suspect.epoch, suspect.events)
        for epoch, events in work.outstanding.items():
            pieces += [Piece(epoch=epoch, first=r.first, last=r.last) for r in events.ranges()]
        for piece in pieces:
            if self._closed:
                self._give_back(piece.epoch, piece.events)
            else:
                self._put(piece, front=True)
        work.outstanding = {}
        self._after(work, now)

    def report(self) -> Report | None:
        """What the coordinator has not heard yet."""
        if not self.has_news:
            return None
        report = Report(
            done=leased(self._done),
            back=leased(self._back),
            failed=tuple(self._failed),
            seconds=self._seconds,
        )
        self._done, self._back, self._failed, self._seconds = {}, {}, [], 0.0
        return report

    def busy_seconds(self, now: float) -> list[float]:
        """For how long each worker had work since the last call."""
        return [_take_busy(work, now) for work in self.slots]

    # ---- cores that jobs take ----

    def reserve(self, slots: frozenset[int]) -> None:
        """From now on just these slots get nothing new; what no other worker can run goes back."""
        self._reserved = slots
        if self._closed:
            self._return_pool()

    def _put(self, piece: Piece, *, front: bool = False) -> None:
        (self._pool.appendleft if front else self._pool.append)(piece)
        self._pool_events += piece.last - piece.first

    def _return_pool(self) -> None:
        while self._pool:
            piece = self._pool.popleft()
            self._give_back(piece.epoch, piece.events)
        self._pool_events = 0

    def _give_back(self, epoch: int, events: IntervalSet) -> None:
        self._back[epoch] = self._back.get(epoch, EMPTY) | events

    def _after(self, work: SlotWork, now: float) -> None:
        if not work.outstanding:
            work.suspects.clear()
            if work.busy_since is not None:
                work.busy_s += now - work.busy_since
                work.busy_since = None


def _take_busy(work: SlotWork, now: float) -> float:
    busy = work.busy_s
    if work.busy_since is not None:
        busy += now - work.busy_since
        work.busy_since = now
    work.busy_s = 0.0
    return busy
