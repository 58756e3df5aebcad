"""The host's machine of a trace as a batch system: what all kinds of it share, and who holds nodes of ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from heapq import heappop, heappush
from math import ceil, inf, nan
from typing import Literal

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_between
from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.simulate.machines.host_alone import HostSchedule
from hpcpanda.simulate.ports import AllocationEvent

Fate = Literal["queued", "running", "ended", "killed", "cancelled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineOptions:
    """Manners of a machine towards our allocations."""

    cycle_s: float = 0.0
    """Our requests are looked at once in so many seconds (Slurm's ``bf_interval``); 0: at once."""
    grace_s: float = 30.0
    """From SIGTERM to SIGKILL where the host preempts us (Slurm's ``GraceTime``)."""
    failures_per_node_hour: float = 0.0
    """Rate at which a node of ours is lost; the whole allocation is killed then."""
    horizon_s: float = 86_400.0
    """Truthful windows are told as far ahead as this: no shorter than our longest walltime."""
    seed: int = 0
    """Of the failures."""

    def __post_init__(self) -> None:
        require_between("cycle_s", self.cycle_s, 0.0, 86_400.0)
        require_between("grace_s", self.grace_s, 0.0, 86_400.0)
        require_between("failures_per_node_hour", self.failures_per_node_hour, 0.0, 1e6)
        require_between("horizon_s", self.horizon_s, 1.0, 1e8)


@dataclass(slots=True, kw_only=True)
class Allocation:
    """An allocation of ours, from the request on."""

    number: int
    nodes: int
    walltime_s: float
    submitted: float
    start: float = nan
    """NaN while it has not started."""
    end: float = nan
    """NaN while it has not ended."""
    fate: Fate = "queued"
    preempted: bool = False
    """It was told to go."""

    @property
    def until(self) -> float:
        """The wall."""
        return self.start + self.walltime_s


class HostMachine(ABC):
    """A machine that the host's jobs of a trace use, and our allocations with the lowest priority.

    Our requests start in the order of submission, except that one that does not fit is overtaken.
    """

    def __init__(self, machine_nodes: int, options: MachineOptions) -> None:
        self._machine_nodes = machine_nodes
        self._options = options
        self._now = 0.0
        self.allocations: list[Allocation] = []
        """All that were ever asked for, by number."""
        self._queued: dict[int, Allocation] = {}
        self._running: dict[int, Allocation] = {}
        self._due: list[tuple[float, int]] = []
        self._told: list[AllocationEvent] = []
        self._look_at = inf
        self._random = np.random.default_rng(options.seed)

    @property
    def now(self) -> float:
        """Seconds."""
        return self._now

    @abstractmethod
    def windows(self) -> tuple[BackfillWindow, ...]:
        """Backfill windows as the batch system tells them now; queued requests of ours are not subtracted."""

    @abstractmethod
    def next_change(self) -> float:
        """When windows change next by the host's doing, other than by getting shorter; infinity after the last."""

    @abstractmethod
    def host(self) -> HostSchedule:
        """How the host's jobs ran, as far as they have."""

    def submit(self, nodes: int, walltime_s: float) -> int:
        """Ask for an allocation; gives its number.

        Raises:
            InvalidValue: no such allocation can ever start.
        """
        require_between("nodes", nodes, 1, self._machine_nodes)
        if not 0 < walltime_s < inf:
            raise InvalidValue("walltime_s", f"{walltime_s} is not a time")
        asked = Allocation(
            number=len(self.allocations), nodes=nodes, walltime_s=walltime_s, submitted=self._now
        )
        self.allocations.append(asked)
        self._queued[asked.number] = asked
        self._want_look()
        return asked.number

    def end(self, allocation: int) -> None:
        """End an allocation of ours now, running or queued; nothing happens when it has ended already."""
        ours = self.allocations[allocation]
        if ours.number in self._queued:
            del self._queued[ours.number]
            ours.fate, ours.end = "cancelled", self._now
            self._tell(ours, "ended")
        elif ours.number in self._running:
            self._gone(ours, "ended")
            self._host_acts()

    def advance(self, until: float) -> tuple[AllocationEvent, ...]:
        """Go on until something happens to allocations of ours, at most until ``until``; see the port."""
        while not self._told:
            ours = self._due[0][0] if self._due else inf
            at = min(ours, self._look_at, self._next_step())
            if at > until or at == inf:
                self._now = max(self._now, until) if until < inf else self._now
                break
            self._now = max(self._now, at)
            self._happen()
        told = tuple(self._told)
        self._told.clear()
        return told

    def finish(self) -> HostSchedule:
        """Withdraw what is queued, let everything run to its end, and give how the host's jobs ran."""
        for number in tuple(self._queued):
            self.end(number)
        while self._told or self._due or self._next_step() < inf:
            self.advance(inf)
        return self.host()

    @abstractmethod
    def _next_step(self) -> float:
        """When :meth:`_step` has to be called next."""

    @abstractmethod
    def _step(self) -> None:
        """All that the host does now; called after allocations of ours that are due have gone."""

    @abstractmethod
    def _admits(self, nodes: int, walltime_s: float) -> bool:
        """Whether an allocation may start now."""

    @abstractmethod
    def _took(self, ours: Allocation) -> None:
        """An allocation has started."""

    @abstractmethod
    def _gave_back(self, ours: Allocation) -> None:
        """An allocation has gone."""

    def _happen(self) -> None:
        """Everything of this instant."""
        while self._due and self._due[0][0] <= self._now:
            ours = self._running.get(heappop(self._due)[1])
            if ours is not None:
                self._gone(ours, "killed")
        self._host_acts()
        if self._look_at <= self._now:
            self._look_at = inf
            self._look()

    def _host_acts(self) -> None:
        if self._next_step() <= self._now:
            self._step()
            if self._queued:
                self._want_look()

    def _want_look(self) -> None:
        """Look at our requests at the end of the cycle."""
        cycle = self._options.cycle_s
        at = max(ceil(self._now / cycle) * cycle, self._now) if cycle else self._now
        self._look_at = min(self._look_at, at)

    def _look(self) -> None:
        """Start those of our requests that may."""
        refused: set[tuple[int, float]] = set()
        for ours in tuple(self._queued.values()):
            shape = ours.nodes, ours.walltime_s
            if shape in refused or not self._admits(*shape):
                refused.add(shape)
                continue
            del self._queued[ours.number]
            self._running[ours.number] = ours
            ours.start, ours.fate = self._now, "running"
            heappush(self._due, (min(ours.until, self._failure(ours)), ours.number))
            self._took(ours)
            self._tell(ours, "started")

    def _failure(self, ours: Allocation) -> float:
        """When a node of an allocation is lost; the times between failures are exponential."""
        rate = self._options.failures_per_node_hour * ours.nodes / 3600.0
        return self._now + float(self._random.exponential(1.0 / rate)) if rate else inf

    def _preempt(self, ours: Allocation) -> None:
        """SIGTERM now, SIGKILL after the grace time."""
        ours.preempted = True
        heappush(self._due, (self._now + self._options.grace_s, ours.number))
        self._tell(ours, "preempted")

    def _gone(self, ours: Allocation, how: Literal["ended", "killed"]) -> None:
        del self._running[ours.number]
        ours.fate, ours.end = how, self._now
        self._gave_back(ours)
        self._tell(ours, how)
        if self._queued:
            self._want_look()

    def _tell(self, ours: Allocation, what: Literal["started", "preempted", "killed", "ended"]) -> None:
        self._told.append(AllocationEvent(at=self._now, allocation=ours.number, what=what))
