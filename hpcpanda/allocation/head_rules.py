"""What the head of an allocation decides: which packs run, when one is started again, when all ends.

A state machine without I/O or clock: ``now`` comes in, effects come out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from hpcpanda.allocation.plan import (
    AllocationPlan,
    Drain,
    EventPack,
    InboxMessage,
    LeasedEvents,
    Pack,
    PackStatus,
    Revoke,
    StartPack,
    TopUp,
)
from hpcpanda.domain.intervals import EMPTY, IntervalSet

RESTARTS: Final = 3
"""A pack that dies so often without finishing an event in between is not started again."""

_KILL_AFTER_S: Final = 10.0
"""A pack that has not ended so long after its grace time is killed."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a pack (again), with what its journals show to be left of its events."""

    pack: Pack
    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Pass a message on to a running pack."""

    pack_id: str
    message: TopUp | Revoke | Drain


@dataclass(frozen=True, slots=True)
class Kill:
    """End a pack's processes at once."""

    pack_id: str


Effect = Launch | Tell | Kill
_Events = tuple[LeasedEvents, ...]


@dataclass(slots=True)
class PackLife:
    """A pack of the allocation."""

    pack: Pack
    status: PackStatus
    running: bool = False
    over: bool = False
    fruitless: int = 0
    idle_since: float | None = None
    kill_at: float | None = None
    again: bool = False
    revoked: set[int] = field(default_factory=set)

    @property
    def events(self) -> tuple[LeasedEvents, ...]:
        """All events given to an event pack, revoked ones left out."""
        if not isinstance(self.pack, EventPack):
            return ()
        return tuple(part for part in self.pack.events if part.epoch not in self.revoked)


class HeadRules:
    """The head's account of its allocation."""

    def __init__(self, plan: AllocationPlan, now: float) -> None:
        self._settings = plan.site.allocation
        self._nodes = plan.nodes
        self._deadline = now + plan.walltime_s - self._settings.margin_s
        self._draining = False
        self._quiet_since = now
        self._waiting = list(plan.packs)
        self.packs: dict[str, PackLife] = {}

    @property
    def draining(self) -> bool:
        """Whether nothing new is started any more."""
        return self._draining

    @property
    def ended(self) -> bool:
        """Whether the allocation has nothing left to do."""
        return self._draining and not any(p.running for p in self.packs.values())

    def on_message(self, message: InboxMessage, now: float) -> list[Effect]:
        """Act on a message of the edge."""
        self._quiet_since = now
        match message:
            case StartPack(pack=pack):
                if pack.pack_id not in self.packs and not self._is_waiting(pack.pack_id):
                    self._waiting.append(pack)
                return []  # the next tick starts it: a top-up or a revoke may follow at once
            case TopUp():
                return self._top_up(message, now)
            case Revoke():
                life = self.packs.get(message.pack_id)
                if life is None:
                    self._change_waiting(message.pack_id, lambda e: _without(e, message.epochs))
                    return []
                life.revoked.update(message.epochs)
                return [Tell(message.pack_id, message)] if life.running else []
            case Drain(pack_id=None):
                return self.drain(message.grace_s, now)
            case Drain(pack_id=pack_id):
                self._waiting = [p for p in self._waiting if p.pack_id != pack_id]
                life = self.packs.get(pack_id or "")
                return self._drain_pack(life, message.grace_s, now) if life else []

    def on_report(self, status: PackStatus, now: float) -> list[Effect]:
        """A pack has said how it is doing."""
        life = self.packs[status.pack_id]
        life.status = status
        if status.events_done:
            life.fruitless = 0
        if not status.idle:
            life.idle_since = None
        elif life.idle_since is None:
            life.idle_since = now
        return []

    def on_exit(self, pack_id: str, how: str, now: float) -> list[Effect]:
        """A pack's processes have ended: in order, or it is started again if that makes sense."""
        life = self.packs[pack_id]
        told_to_end = life.kill_at is not None
        life.running = False
        life.kill_at = None
        self._quiet_since = now
        if life.status.state in ("ended", "failed"):
            life.over = not (life.again and life.status.state == "ended")
            life.again = False
            return self.tick(now)
        life.fruitless += 1
        if self._draining or (told_to_end and not life.again) or life.fruitless > RESTARTS:
            life.over = True
            error = life.status.error or f"the pack died: {how}"
            life.status = replace(life.status, state="ended", error=error, cores_busy=0.0, occupancy=())
            return self.tick(now)
        life.again = False
        return [self._launch(life, now)]

    def drain(self, grace_s: float, now: float) -> list[Effect]:
        """End all packs within the grace time, and the allocation."""
        self._draining = True
        self._waiting.clear()
        return [e for life in self.packs.values() for e in self._drain_pack(life, grace_s, now)]

    def tick(self, now: float) -> list[Effect]:
        """Do what time brings: start waiting packs, drain idle ones, end at the deadline."""
        if not self._draining and now >= self._deadline:
            return self.drain(self._settings.grace_s, now)
        effects: list[Effect] = []
        for life in self.packs.values():
            if life.kill_at is not None and now >= life.kill_at:
                life.kill_at = now + _KILL_AFTER_S
                effects.append(Kill(life.pack.pack_id))
            idle = life.running and life.idle_since is not None and life.kill_at is None
            if idle and now - (life.idle_since or now) >= self._settings.linger_s:
                effects += self._drain_pack(life, self._settings.grace_s, now)
        effects += self._start_waiting(now)
        if any(p.running for p in self.packs.values()):
            self._quiet_since = now
        elif not effects and now - self._quiet_since >= self._settings.linger_s:
            self._draining = True
        return effects

    def next_due(self, now: float) -> float:
        """Seconds until the clock alone may change something."""
        due = [self._deadline]
        due += [p.kill_at for p in self.packs.values() if p.kill_at is not None]
        due += [p.idle_since + self._settings.linger_s for p in self.packs.values() if p.idle_since]
        if not any(p.running for p in self.packs.values()):
            due.append(self._quiet_since + self._settings.linger_s)
        return max(0.0, min(due) - now)

    def _top_up(self, message: TopUp, now: float) -> list[Effect]:
        life = self.packs.get(message.pack_id)
        if life is None:
            self._change_waiting(message.pack_id, lambda e: join(e + message.events))
            return []
        if not isinstance(life.pack, EventPack):
            return []
        life.pack = replace(life.pack, events=join(life.pack.events + message.events))
        life.idle_since = None
        if life.running and life.kill_at is None:
            return [Tell(message.pack_id, message)]
        if life.running:  # it is being drained: another run of it takes the new events
            life.again = True
            return []
        if self._draining or life.status.state == "failed":
            return []
        life.over = False
        return self._start_waiting(now)

    def _start_waiting(self, now: float) -> list[Effect]:
        """Start packs for which nodes are free, in order."""
        if self._draining:
            return []
        effects: list[Effect] = []
        for life in self.packs.values():
            if not life.running and not life.over:
                effects += self._launch_if_free(life, now)
        while self._waiting and self._waiting[0].nodes <= self._free_nodes:
            pack = self._waiting.pop(0)
            status = PackStatus(pack_id=pack.pack_id, task_id=pack.task_id, state="starting")
            life = self.packs[pack.pack_id] = PackLife(pack, status)
            effects += self._launch_if_free(life, now)
        return effects

    def _is_waiting(self, pack_id: str) -> bool:
        return any(p.pack_id == pack_id for p in self._waiting)

    def _change_waiting(self, pack_id: str, change: Callable[[_Events], _Events]) -> None:
        """Change the events of a pack that has not been started yet."""
        for i, pack in enumerate(self._waiting):
            if pack.pack_id == pack_id and isinstance(pack, EventPack):
                self._waiting[i] = replace(pack, events=change(pack.events))

    @property
    def _free_nodes(self) -> int:
        return self._nodes - sum(p.pack.nodes for p in self.packs.values() if p.running)

    def _launch_if_free(self, life: PackLife, now: float) -> list[Effect]:
        return [self._launch(life, now)] if life.pack.nodes <= self._free_nodes else []

    def _launch(self, life: PackLife, now: float) -> Launch:
        life.running = True
        life.idle_since = None
        life.status = replace(life.status, state="starting", idle=False, cores_busy=0.0, occupancy=())
        pack = life.pack
        if isinstance(pack, EventPack):
            pack = replace(pack, events=life.events)
        return Launch(pack, max(0.0, self._deadline - now))

    def _drain_pack(self, life: PackLife, grace_s: float, now: float) -> list[Effect]:
        if not life.running:
            return []
        kill_at = now + grace_s + _KILL_AFTER_S
        life.kill_at = min(kill_at, life.kill_at or kill_at)
        if isinstance(life.pack, EventPack):
            return [Tell(life.pack.pack_id, Drain(grace_s=grace_s))]
        return []


def _without(parts: _Events, epochs: tuple[int, ...]) -> _Events:
    return tuple(part for part in parts if part.epoch not in epochs)


def join(parts: tuple[LeasedEvents, ...]) -> tuple[LeasedEvents, ...]:
    """One part an epoch."""
    by_epoch: dict[int, IntervalSet] = {}
    for part in parts:
        by_epoch[part.epoch] = by_epoch.get(part.epoch, EMPTY) | part.events
    return tuple(LeasedEvents(epoch=e, events=s) for e, s in by_epoch.items())
