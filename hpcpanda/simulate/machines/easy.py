"""The machine under EASY backfill, which knows requested walltimes only: our allocations run to their end."""

from __future__ import annotations

from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.simulate.machines.host_alone import HostRun, HostSchedule
from hpcpanda.simulate.machines.host_machine import Allocation, HostMachine, MachineOptions
from hpcpanda.simulate.trace import HostTrace


class EasyMachine(HostMachine):
    """The host's jobs and our allocations are scheduled together, ours behind all of the host's.

    Windows are what EASY knows: the extra nodes, without a known end, and the other free nodes until the shadow time.
    A host job that ends early, or comes later, may find nodes taken that it would have had without us.
    """

    def __init__(self, trace: HostTrace, options: MachineOptions) -> None:
        super().__init__(trace.machine_nodes, options)
        self._host = HostRun(trace)
        self._freed = False

    def windows(self) -> tuple[BackfillWindow, ...]:
        """What EASY leaves us, by its estimates."""
        queue = self._host.queue
        return easy_windows(
            queue.free, queue.extra if queue.waiting else queue.free, queue.shadow - self._now
        )

    def next_change(self) -> float:
        """When a host job is next submitted or ends."""
        return self._host.next_time

    def host(self) -> HostSchedule:
        """How the host's jobs ran beside ours."""
        return self._host.schedule()

    def _next_step(self) -> float:
        return self._now if self._freed else self._host.next_time

    def _step(self) -> None:
        self._freed = False
        self._host.step(self._now)

    def _admits(self, nodes: int, walltime_s: float) -> bool:
        return self._host.queue.admits(nodes, walltime_s, self._now)

    def _took(self, ours: Allocation) -> None:
        self._host.queue.occupy(ours.nodes, ours.until)

    def _gave_back(self, ours: Allocation) -> None:
        self._host.queue.release(ours.nodes, ours.until)
        self._freed = True


def easy_windows(free: int, extra: int, seconds: float) -> tuple[BackfillWindow, ...]:
    """Windows of free nodes, of which some are extra and the others free for so many seconds."""
    endless = max(min(free, extra), 0)
    windows = []
    if endless:
        windows.append(BackfillWindow(queue=None, nodes=endless))
    if free > endless and seconds > 0:
        windows.append(BackfillWindow(queue=None, nodes=free - endless, seconds=seconds))
    return tuple(windows)
