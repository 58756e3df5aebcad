"""The machine whose batch system knows the future: the host's schedule is fixed, and we get what it leaves idle."""

from __future__ import annotations

from math import inf

from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.simulate.machines.host_alone import HostSchedule
from hpcpanda.simulate.machines.host_machine import Allocation, HostMachine, MachineOptions
from hpcpanda.simulate.machines.idle import Held, idle_profile
from hpcpanda.simulate.trace import HostTrace


class TruthfulMachine(HostMachine):
    """Windows are what the schedule's future leaves idle, less what we hold.

    A request starts as soon as so many nodes stay idle for all of its walltime: no host job is ever late.
    """

    def __init__(self, trace: HostTrace, schedule: HostSchedule, options: MachineOptions) -> None:
        super().__init__(trace.machine_nodes, options)
        self._schedule = schedule
        self._profile = idle_profile(trace, schedule)
        self._held: Held | None = None
        self._holds: dict[int, tuple[float, int]] = {}
        self._blocked: dict[tuple[int, float], float] = {}  # shapes, and until when the host leaves no room
        self._risen_at = self._profile.next_rise(-inf)

    def windows(self) -> tuple[BackfillWindow, ...]:
        """The idle nodes that we do not hold, by how long they stay idle."""
        return self._profile.windows_at(self._now, horizon_s=self._options.horizon_s, held=self._holding())

    def next_change(self) -> float:
        """When the host next leaves more nodes idle."""
        return self._profile.next_rise(self._now)

    def host(self) -> HostSchedule:
        """The schedule that it was made with."""
        return self._schedule

    def _next_step(self) -> float:
        return self._risen_at if self._queued else inf

    def _step(self) -> None:
        self._risen_at = self._profile.next_rise(self._now)

    def _admits(self, nodes: int, walltime_s: float) -> bool:
        shape = nodes, walltime_s
        if self._blocked.get(shape, self._now) > self._now:
            return False
        self._blocked[shape] = self._profile.blocked_until(nodes, walltime_s, self._now)
        if self._blocked[shape] > self._now:
            return False
        held = self._holding()
        return not held.nodes or self._profile.fits(nodes, walltime_s, self._now, held)

    def _took(self, ours: Allocation) -> None:
        self._holds[ours.number] = ours.until, ours.nodes
        self._held = None

    def _gave_back(self, ours: Allocation) -> None:
        del self._holds[ours.number]
        self._held = None

    def _holding(self) -> Held:
        if self._held is None:
            self._held = Held(self._holds.values())
        return self._held
