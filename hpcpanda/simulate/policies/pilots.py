"""What others do: pilots of a fixed shape, jobs shaped to a hole, automatic allocation. Each a policy of a few lines."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from hpcpanda.domain.site import Site
from hpcpanda.packing.windows import rectangles, subtract
from hpcpanda.simulate.policies.policy import next_poll
from hpcpanda.simulate.ports import AllocationEvent, BatchSystem
from hpcpanda.simulate.trace import Floats
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.workload import JobWork, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PilotRules:
    """How the nodes of an allocation take jobs."""

    latest_start_s: float
    """No job is begun later than this after the begin of the allocation."""
    most_jobs: int | None = None
    """Jobs of one slot, one after the other, at most."""


class Pilots:
    """The nodes of one allocation: slots that take job after job, and lose what runs when they are ended."""

    def __init__(
        self, rules: PilotRules, work: JobWork, slots: int, startup_s: float, rng: np.random.Generator
    ) -> None:
        self._work = work
        free = np.full(slots, startup_s)
        columns: list[tuple[Floats, Floats]] = []
        while rules.most_jobs is None or len(columns) < rules.most_jobs:
            begins = free <= rules.latest_start_s
            if not begins.any():
                break
            run = np.minimum(work.run_times(rng, slots), work.limit_s)
            ends = np.where(begins, free + run, free)
            columns.append((free, ends))
            free = ends
        self.ends_after_s = float(free.max())
        """The last job has ended, if nothing ends it before."""
        self._jobs = columns
        self._slots = slots

    def close(self, held_s: float, node_cores: int, nodes: int, startup_s: float, account: Account) -> None:
        """Account for an allocation that was held for so long."""
        cores = self._work.cores
        useful = lost = 0.0
        for start, end in self._jobs:
            done = (end <= held_s) & (end > start)
            cut = (start < held_s) & (end > held_s)
            useful += float((end - start)[done].sum())
            lost += float((held_s - start[cut]).sum())
            account.jobs += int(done.sum())
        account.useful += useful * cores
        account.lost += lost * cores
        all_cores = nodes * node_cores
        startup = min(startup_s, held_s) * all_cores
        account.startup += startup
        account.unfilled += held_s * all_cores - startup - (useful + lost) * cores


@dataclass(slots=True)
class _Held:
    nodes: int
    walltime_s: float
    submitted: float
    started: float | None = None
    pilots: Pilots | None = None
    how: str = ""


class PilotPolicy:
    """What the baselines have in common: they keep allocations, poll now and then, and pilots do the work."""

    poll_s = 300.0

    def __init__(
        self, name: str, site: Site, workload: Workload, jobs: JobWork, rng: np.random.Generator
    ) -> None:
        self.name = name
        self.account = Account()
        self._site = site
        self._jobs = jobs
        self._startup_s = workload.startup_s
        self._rng = rng
        self._held: dict[int, _Held] = {}
        self._ends: dict[int, float] = {}
        self._now = 0.0

    # ---- what they differ in ----

    def rules(self, walltime_s: float) -> PilotRules:
        """How the nodes of an allocation take jobs."""
        raise NotImplementedError

    def wishes(self, system: BatchSystem) -> list[tuple[int, float]]:
        """Allocations to ask for now: nodes and walltime."""
        raise NotImplementedError

    # ---- the policy ----

    def due(self, system: BatchSystem) -> float:
        """The next poll, or the end of an allocation whose jobs are all done."""
        return min(min(self._ends.values(), default=inf), next_poll(system.now, self.poll_s, 0.0))

    def heard(self, event: AllocationEvent) -> None:
        """A pilot has begun, or has ended."""
        held = self._held.get(event.allocation)
        if held is None:
            return
        if event.what == "started":
            held.started = event.at
            self.account.waits.append(event.at - held.submitted)
            slots = held.nodes * (self._site.nodes.cores // self._jobs.cores)
            rules = self.rules(held.walltime_s)
            held.pilots = Pilots(rules, self._jobs, slots, self._startup_s, self._rng)
            if held.pilots.ends_after_s < held.walltime_s:
                self._ends[event.allocation] = event.at + held.pilots.ends_after_s
        elif event.what == "preempted":
            held.how = "preempted"  # jobs know of no warning: they run until they are killed
        else:
            self._over(event.allocation, event.at, event.what)

    def act(self, system: BatchSystem) -> None:
        """End what has nothing left to do; at a poll ask for more."""
        for allocation in [a for a, at in self._ends.items() if at <= system.now]:
            system.end(allocation)
            self._over(allocation, system.now, "ended")
        if system.now % self.poll_s == 0.0:
            for nodes, walltime_s in self.wishes(system):
                allocation = system.submit(nodes, walltime_s)
                self.account.requests += 1
                self._held[allocation] = _Held(nodes, walltime_s, system.now)

    def close(self, system: BatchSystem) -> None:
        """Everything that runs is cut."""
        for allocation in list(self._held):
            self._over(allocation, system.now, "cut by the end of the simulation")

    def _over(self, allocation: int, at: float, what: str) -> None:
        held = self._held.pop(allocation, None)
        self._ends.pop(allocation, None)
        if held is None or held.started is None or held.pilots is None:
            return
        seconds = at - held.started
        held.pilots.close(seconds, self._site.nodes.cores, held.nodes, self._startup_s, self.account)
        how = held.how or what
        if how == "killed":
            at_wall = seconds >= held.walltime_s - 1e-6
            self.account.killed_at_wall += at_wall
            self.account.failed += not at_wall
        self.account.preempted += how == "preempted"
        self.account.spans.append((held.started, at, held.nodes, how))

    @property
    def _nodes(self) -> int:
        return sum(h.nodes for h in self._held.values())

    @property
    def _queued(self) -> int:
        return sum(h.started is None for h in self._held.values())

    def _may_ask(self, nodes: int, asked: list[tuple[int, float]]) -> bool:
        """Whether the site's limits allow one more."""
        taken = self._nodes + sum(n for n, _ in asked)
        count = len(self._held) + len(asked)
        return count < self._site.limits.allocations and taken + nodes <= self._site.node_limit


class FixedPilots(PilotPolicy):
    """A constant number of pilots of one shape, queued or running, as Harvester keeps workers up to ``maxWorkers``
    (T. Maeno et al., EPJ Web Conf. 214, 03030, 2019). The shape is that of ePIC at NERSC Perlmutter: one node for 4.05 h;
    a pilot takes another job while its elapsed time is under a floor (PanDA pilot, ``timefloor``)."""

    def __init__(
        self,
        site: Site,
        workload: Workload,
        rng: np.random.Generator,
        *,
        nodes: int = 1,
        walltime_s: float = 4.05 * 3600,
    ) -> None:
        super().__init__("fixed pilots", site, workload, workload.jobs, rng)
        self._shape = (nodes, min(walltime_s, site.allocation.walltime_s))

    def rules(self, walltime_s: float) -> PilotRules:
        """The floor leaves time for one job that is slower than nine of ten."""
        return PilotRules(latest_start_s=walltime_s - self._jobs.p90_s)

    def wishes(self, _system: BatchSystem) -> list[tuple[int, float]]:
        """As many as are missing."""
        asked: list[tuple[int, float]] = []
        while self._may_ask(self._shape[0], asked):
            asked.append(self._shape)
        return asked


class TitanBrokers(PilotPolicy):
    """PanDA at Titan: twenty brokers, each with one job in the batch system at a time, which poll the largest free hole
    and fill it with one MPI job of 15 to 300 nodes, an AthenaMP job of 100 events on every node.

    Jobs lasted 6281 s in the mean with a standard deviation of 521 s, 7452 s at most; holes of less than 105 minutes were
    not used (D. Oleynik et al., arXiv:1704.00978, sections V and VI, table I: they took 18 % of the backfill
    availability). A walltime of 127 minutes covers the longest job. They polled about every ten minutes (62555 looks in
    14 months); five are taken here.
    """

    BROKERS = 20
    FEWEST_NODES, MOST_NODES = 15, 300
    SHORTEST_S, LONGEST_S = 105 * 60.0, 127 * 60.0

    def __init__(self, site: Site, workload: Workload, rng: np.random.Generator) -> None:
        job = JobWork(cores=site.nodes.cores, median_s=6259.0, p90_s=6950.0, limit_s=self.LONGEST_S)
        super().__init__("Titan-style brokers", site, workload, job, rng)

    def rules(self, walltime_s: float) -> PilotRules:
        """One job a node."""
        return PilotRules(latest_start_s=walltime_s, most_jobs=1)

    def wishes(self, system: BatchSystem) -> list[tuple[int, float]]:
        """The largest hole for every broker that has nothing."""
        asked: list[tuple[int, float]] = []
        windows = system.windows() or ()
        longest = min(self.LONGEST_S, self._site.allocation.walltime_s)
        while len(self._held) + len(asked) < self.BROKERS:
            shapes = [
                (min(w.nodes, self.MOST_NODES), min(w.length, longest) // 60 * 60.0, w)
                for w in rectangles(windows)
                if w.nodes >= self.FEWEST_NODES and w.length >= self.SHORTEST_S
            ]
            nodes, walltime_s, window = max(shapes, key=lambda s: (s[0] * s[1], s[1]), default=(0, 0.0, None))
            if window is None or not self._may_ask(nodes, asked):
                break
            asked.append((nodes, walltime_s))
            windows = subtract(windows, window.queue, nodes, walltime_s)
        return asked


class HyperQueueAllocation(PilotPolicy):
    """Automatic allocation of HyperQueue: up to ``backlog`` equal allocations wait in the queue, whatever is free; workers
    live as long as the allocation, and a job is started only where its time request fits (HyperQueue manual, "Automatic
    allocation": ``--backlog``, ``--time-limit``, ``--max-workers-per-alloc``; "Jobs": ``--time-request``)."""

    poll_s = 60.0

    def __init__(
        self,
        site: Site,
        workload: Workload,
        rng: np.random.Generator,
        *,
        backlog: int = 10,
        nodes: int = 8,
        time_limit_s: float = 6 * 3600.0,
    ) -> None:
        super().__init__("HyperQueue-style allocation", site, workload, workload.jobs, rng)
        self._backlog = backlog
        self._shape = (nodes, min(time_limit_s, site.allocation.walltime_s))

    def rules(self, walltime_s: float) -> PilotRules:
        """The time request is the job's walltime limit."""
        return PilotRules(latest_start_s=walltime_s - self._jobs.limit_s)

    def wishes(self, _system: BatchSystem) -> list[tuple[int, float]]:
        """Fill the backlog up."""
        asked: list[tuple[int, float]] = []
        while self._queued + len(asked) < self._backlog and self._may_ask(self._shape[0], asked):
            asked.append(self._shape)
        return asked
