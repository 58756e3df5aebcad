"""What the head of an allocation decides: which packs run, when one is started again, when all ends.

A state machine without I/O or clock: ``now`` comes in, effects come out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from hpcpanda.allocation.pack_work import Work, added, topped_up, without_epochs, without_task
from hpcpanda.allocation.plan import (
    AddWork,
    AllocationPlan,
    Drain,
    EndWork,
    InboxMessage,
    MergePack,
    MpiJobPack,
    Pack,
    PackStatus,
    Revoke,
    StartPack,
    ToPack,
    TopUp,
    WorkPack,
)

RESTARTS: Final = 3
"""A pack that dies so often without finishing an event or job in between is not started again."""

_KILL_AFTER_S: Final = 10.0
"""A pack that has not ended so long after its grace time is killed."""


@dataclass(frozen=True, slots=True)
class Launch:
    """Start a pack (again), with what its journals show to be left of its work."""

    pack: Pack
    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    """Pass a message on to a running pack."""

    pack_id: str
    message: ToPack


@dataclass(frozen=True, slots=True)
class Kill:
    """End a pack's processes at once."""

    pack_id: str


@dataclass(frozen=True, slots=True)
class CountNodes:
    """Ask the batch system how many nodes are left, and tell :meth:`HeadRules.on_nodes`; a question that has not been
    answered yet is asked anew."""


Effect = Launch | Tell | Kill | CountNodes


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
    died: str | None = None
    """How, while it is not decided whether it is started again."""
    revoked: set[tuple[int, int]] = field(default_factory=set)
    """``(task_id, epoch)`` under which nothing is done any more."""

    def change(self, change: Callable[[Work], Work]) -> None:
        """Change what a work pack has to do."""
        if isinstance(self.pack, WorkPack):
            self.pack = replace(self.pack, work=_unrevoked(change(self.pack.work), self.revoked))

    def give_up(self) -> None:
        """It is not started again."""
        self.over = True
        error = self.status.error or (f"the pack died: {self.died}" if self.died is not None else None)
        self.status = replace(
            self.status, state="ended", error=error, died=self.died, cores_busy=0.0, occupancy=()
        )
        self.died = None

    def shrink(self, nodes: int) -> None:
        """Make do with fewer nodes, where that can be."""
        if isinstance(self.pack, WorkPack) and 0 < nodes < self.pack.nodes:
            self.pack = replace(self.pack, nodes=nodes)

    def revoke(self, task_id: int, epochs: tuple[int, ...]) -> None:
        """Nothing is done under these epochs any more."""
        self.revoked.update((task_id, epoch) for epoch in epochs)
        if isinstance(self.pack, MpiJobPack):
            (work,) = _unrevoked(self.pack.work, self.revoked)
            self.pack = replace(self.pack, work=(work,))
        self.change(lambda work: work)


class HeadRules:
    """The head's account of its allocation."""

    def __init__(self, plan: AllocationPlan, now: float) -> None:
        self._settings = plan.site.allocation
        self._nodes = plan.nodes
        self._deadline = now + plan.walltime_s - self._settings.margin_s
        self._draining = False
        self._counting = False
        self._quiet_since = now
        self._waiting = [_new_life(pack) for pack in plan.packs]
        self.packs: dict[str, PackLife] = {}

    @property
    def draining(self) -> bool:
        """Whether nothing new is started any more."""
        return self._draining

    @property
    def nodes(self) -> int:
        """Nodes that can be used, as far as is known."""
        return self._nodes

    @property
    def ended(self) -> bool:
        """Whether the allocation has nothing left to do."""
        return self._draining and not any(p.running for p in self.packs.values())

    def on_message(self, message: InboxMessage, now: float) -> list[Effect]:
        """Act on a message of the edge."""
        self._quiet_since = now
        match message:
            case StartPack(pack=pack):
                if self._life(pack.pack_id) is None:
                    self._waiting.append(_new_life(pack))
                return []  # the next tick starts it: a top-up or a revoke may follow at once
            case Drain(pack_id=None):
                return self.drain(message.grace_s, now)
            case Drain(pack_id=pack_id):
                self._waiting = [p for p in self._waiting if p.pack.pack_id != pack_id]
                life = self.packs.get(pack_id or "")
                return self._drain_pack(life, message.grace_s, now) if life else []
            case _:
                life = self._life(message.pack_id)
                return self._change(life, message, now) if life is not None else []

    def on_report(self, status: PackStatus, now: float) -> list[Effect]:
        """A pack has said how it is doing."""
        life = self.packs[status.pack_id]
        life.status = replace(status, nodes=life.pack.nodes)
        if status.done:
            life.fruitless = 0
        if not status.idle:
            life.idle_since = None
        elif life.idle_since is None:
            life.idle_since = now
        if status.told_to_end and not self._draining:
            return self.drain(self._settings.grace_s, now)
        return []

    def on_exit(self, pack_id: str, how: str, now: float) -> list[Effect]:
        """A pack's processes have ended: in order, or it is started again if that makes sense."""
        life = self.packs[pack_id]
        told_to_end = life.kill_at is not None
        life.running = False
        life.kill_at = None
        self._quiet_since = now
        if life.status.state == "ended":
            life.over = not life.again
            life.again = False
            return self.tick(now)
        life.fruitless += 1
        life.died = how
        if self._draining or (told_to_end and not life.again):
            life.give_up()
            return self.tick(now)
        life.again = False
        life.status = _starting(life.status)
        self._counting = True
        return [CountNodes()]

    def on_nodes(self, left: int | None, now: float) -> list[Effect]:
        """The batch system has said how many nodes are left, or nothing: packs that died start again on those."""
        self._counting = False
        lost = left is not None and 0 < left < self._nodes
        if left is not None and lost:
            self._nodes = left
        effects: list[Effect] = []
        for life in self.packs.values():
            if life.died is None:
                continue
            if lost:
                life.fruitless = 0
                life.shrink(self._free_nodes)
            if self._draining or life.fruitless > RESTARTS:
                life.give_up()
            else:
                life.died = None
                effects += self._launch_if_free(life, now)
        return effects + self.tick(now)

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
        if self._counting or any(p.running for p in self.packs.values()):
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

    def _change(
        self, life: PackLife, message: TopUp | AddWork | EndWork | Revoke, now: float
    ) -> list[Effect]:
        """Change what a pack has to do, and tell it if it runs."""
        match message:
            case TopUp(task_id=task_id, events=events, job=job):
                return self._more(life, message, lambda work: topped_up(work, task_id, events, job), now)
            case AddWork(work=more):
                return self._more(life, message, lambda work: added(work, more), now)
            case EndWork(task_id=task_id):
                life.change(lambda work: without_task(work, task_id))
            case Revoke():
                life.revoke(message.task_id, message.epochs)
        return [Tell(message.pack_id, message)] if life.running else []

    def _more(
        self, life: PackLife, message: TopUp | AddWork, change: Callable[[Work], Work], now: float
    ) -> list[Effect]:
        if not isinstance(life.pack, WorkPack):
            return []
        life.change(change)
        life.idle_since = None
        if life.pack.pack_id not in self.packs:  # it has not been started yet
            return []
        if life.running and life.kill_at is None:
            return [Tell(message.pack_id, message)]
        if life.running:  # it is being drained: another run of it takes the new work
            life.again = True
            return []
        if self._draining:
            return []
        life.over = False
        return self._start_waiting(now)

    def _start_waiting(self, now: float) -> list[Effect]:
        """Start packs for which nodes are free, in order; those that need none do not wait behind others."""
        if self._draining or self._counting:
            return []
        effects: list[Effect] = []
        for life in self.packs.values():
            if not life.running and not life.over:
                effects += self._launch_if_free(life, now)
        self._waiting.sort(key=lambda waiting: waiting.pack.nodes > 0)
        while self._waiting and min(self._waiting[0].pack.nodes, self._nodes) <= self._free_nodes:
            life = self._waiting.pop(0)
            self.packs[life.pack.pack_id] = life
            effects += self._launch_if_free(life, now)
        return effects

    def _life(self, pack_id: str) -> PackLife | None:
        """The pack, started or waiting."""
        waiting = next((w for w in self._waiting if w.pack.pack_id == pack_id), None)
        return self.packs.get(pack_id) or waiting

    @property
    def _free_nodes(self) -> int:
        return self._nodes - sum(p.pack.nodes for p in self.packs.values() if p.running)

    def _launch_if_free(self, life: PackLife, now: float) -> list[Effect]:
        life.shrink(self._nodes)
        if life.pack.nodes > self._nodes:  # its work is undone, and for another allocation
            life.give_up()
            return []
        return [self._launch(life, now)] if life.pack.nodes <= self._free_nodes else []

    def _launch(self, life: PackLife, now: float) -> Launch:
        life.running = True
        life.idle_since = None
        life.status = replace(_starting(life.status), nodes=life.pack.nodes)
        return Launch(life.pack, max(0.0, self._deadline - now))

    def _drain_pack(self, life: PackLife, grace_s: float, now: float) -> list[Effect]:
        if not life.running:
            if not life.over:  # it died, or waits for nodes
                life.give_up()
            return []
        kill_at = now + grace_s + _KILL_AFTER_S
        life.kill_at = min(kill_at, life.kill_at or kill_at)
        if isinstance(life.pack, MergePack):
            return []
        return [Tell(life.pack.pack_id, Drain(grace_s=grace_s))]


def _new_life(pack: Pack) -> PackLife:
    if isinstance(pack, WorkPack):
        work: Work = ()
        for more in pack.work:
            work = added(work, more)
        pack = replace(pack, work=work)
    return PackLife(pack, PackStatus(pack_id=pack.pack_id, state="starting", nodes=pack.nodes))


def _starting(status: PackStatus) -> PackStatus:
    return replace(status, state="starting", idle=False, cores_busy=0.0, occupancy=())


def _unrevoked(work: Work, revoked: set[tuple[int, int]]) -> Work:
    for task_id, epoch in revoked:
        work = without_epochs(work, task_id, (epoch,))
    return work
