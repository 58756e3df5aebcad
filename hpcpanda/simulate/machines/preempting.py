"""The machine under EASY backfill whose host preempts us: its scheduler sees our nodes as free.

Host jobs are chosen as if we were not there. One that is chosen while nodes of ours are needed waits for them, until
the grace time has passed at the latest: those of ours that have to go get their SIGTERM at once, whatever else the
host job waits for. So no host job starts more than the grace time later than without us.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from math import inf, nan

from hpcpanda.packing.windows import BackfillWindow
from hpcpanda.simulate.machines.easy import easy_windows
from hpcpanda.simulate.machines.host_alone import HostRun, HostSchedule
from hpcpanda.simulate.machines.host_machine import Allocation, HostMachine, MachineOptions
from hpcpanda.simulate.trace import HostTrace


class PreemptingMachine(HostMachine):
    """Windows are what EASY knows of the host's jobs, less what we hold; we run until the host needs the nodes.

    Two schedules are kept: the host's own, which nothing of ours touches, and what differs from it in reality, which
    are host jobs chosen but not started yet, and those that started late and therefore end late.
    """

    def __init__(self, trace: HostTrace, options: MachineOptions) -> None:
        super().__init__(trace.machine_nodes, options)
        self._host = HostRun(trace)
        self._nodes: list[int] = trace.nodes.tolist()
        self._run: list[float] = trace.run.tolist()
        self._held = 0  # nodes of ours, also of those that were told to go
        self._staying = 0  # nodes of ours that were not told to go
        self._chosen: deque[int] = deque()  # host jobs that wait for nodes
        self._chosen_nodes = 0
        self._more = 0  # nodes busy with host jobs in reality, less those in the host's own schedule
        self._later: list[tuple[float, int]] = []  # when that changes, by how much
        self._late: dict[int, float] = {}  # host jobs that had to wait, and when they started
        self._freed = False

    def windows(self) -> tuple[BackfillWindow, ...]:
        """What EASY leaves us, by its estimates; the host may take it back before."""
        queue = self._host.queue
        return easy_windows(self._free(), self._extra(), queue.shadow - self._now)

    def next_change(self) -> float:
        """When a host job is next submitted or ends."""
        return min(self._host.next_time, self._later[0][0] if self._later else inf)

    def host(self) -> HostSchedule:
        """The host's own schedule, with the starts that were late because of us."""
        own = self._host.schedule()
        for job, start in self._late.items():
            own.start[job], own.end[job] = start, start + self._run[job]
        return own

    def _next_step(self) -> float:
        return self._now if self._freed else self.next_change()

    def _step(self) -> None:
        self._freed = False
        while self._later and self._later[0][0] <= self._now:
            self._more += heappop(self._later)[1]
        if self._host.next_time <= self._now:
            self._choose(self._host.step(self._now))
        while self._chosen and self._nodes[self._chosen[0]] <= self._idle():
            self._start(self._chosen.popleft())
        self._mark_late()

    def _choose(self, jobs: list[int]) -> None:
        """Host jobs are to start now; ours make room."""
        for job in jobs:
            self._chosen.append(job)
            self._chosen_nodes += self._nodes[job]
            self._more -= self._nodes[job]
        needed = self._staying - self._host.queue.free
        if needed > 0:
            for ours in victims(list(self._running.values()), needed):
                self._staying -= ours.nodes
                self._preempt(ours)

    def _start(self, job: int) -> None:
        """A chosen host job has its nodes."""
        self._more += self._nodes[job]
        self._chosen_nodes -= self._nodes[job]
        if job in self._late:
            self._late[job] = self._now
            heappush(self._later, (self._now + self._run[job], -self._nodes[job]))

    def _mark_late(self) -> None:
        """Host jobs that have to wait: in the host's own schedule they end a run time from now, in reality later."""
        for job in reversed(self._chosen):
            if job in self._late:
                break
            self._late[job] = nan
            heappush(self._later, (self._now + self._run[job], self._nodes[job]))

    def _idle(self) -> int:
        """Nodes on which nothing runs in reality."""
        return self._host.queue.free - self._more - self._held

    def _free(self) -> int:
        """Nodes for more of ours: idle, and not needed by the host."""
        return min(self._host.queue.free - self._staying, self._idle() - self._chosen_nodes)

    def _extra(self) -> int:
        """Nodes for more of ours beyond the shadow time."""
        queue = self._host.queue
        if not queue.waiting:
            return self._free()
        return queue.extra - sum(
            ours.nodes for ours in self._running.values() if ours.until > queue.shadow and not ours.preempted
        )

    def _admits(self, nodes: int, walltime_s: float) -> bool:
        if nodes > self._free():
            return False
        return self._now + walltime_s <= self._host.queue.shadow or nodes <= self._extra()

    def _took(self, ours: Allocation) -> None:
        self._held += ours.nodes
        self._staying += ours.nodes

    def _gave_back(self, ours: Allocation) -> None:
        self._held -= ours.nodes
        if not ours.preempted:
            self._staying -= ours.nodes
        self._freed = True


def victims(running: list[Allocation], needed: int) -> list[Allocation]:
    """Allocations to preempt for so many nodes: the youngest, which lose least, and no more than needed."""
    chosen: list[Allocation] = []
    total = 0
    for ours in sorted(running, key=lambda a: (-a.start, -a.number)):
        if total >= needed:
            break
        if not ours.preempted:
            chosen.append(ours)
            total += ours.nodes
    spared = set()
    for ours in reversed(chosen):
        if total - ours.nodes >= needed:
            total -= ours.nodes
            spared.add(ours.number)
    return [ours for ours in chosen if ours.number not in spared]
