"""What a simulated edge remembers of its allocations, and the planner's picture of it (as ``hpcpanda_edge.view`` draws it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from hpcpanda.domain.site import Site
from hpcpanda.planning.situation import AllocationView, PackView, PartView
from hpcpanda.simulate.simulated_edge.books import Books
from hpcpanda.simulate.work.account import Account
from hpcpanda.simulate.work.pack import PackModel

EVENTS, JOBS = 1, 2
"""The two tasks: their numbers."""


@dataclass(slots=True)
class SimPack:
    """A work pack of an allocation that has not ended."""

    holder: str
    nodes: int
    tasks: set[int]
    """Whose events, or jobs, it was given."""
    model: PackModel | None = None
    """None while its allocation queues."""
    entered: float = 0.0
    """When what it had finished was last entered into the ledgers."""


@dataclass(slots=True)
class SimAllocation:
    """An allocation that has not ended."""

    number: int
    nodes: int
    walltime_s: float
    submitted: float
    in_window: bool
    packs: list[SimPack] = field(default_factory=list)
    started: float = inf
    ending: bool = False
    """It has been told to end, by its deadline or by a preemption."""
    how: str = ""
    over_at: float = inf
    """When it ends by itself, once it is ending."""
    wake_at: float = inf
    """When it is to be looked at."""
    empty_from: float = inf
    """From then on nodes of it had no pack."""
    free_nodes: int = 0

    @property
    def running(self) -> bool:
        """Whether it has begun."""
        return self.started < inf

    def deadline(self, site: Site) -> float:
        """When it stops working."""
        return self.started + self.walltime_s - site.allocation.margin_s

    def note_free(self, now: float, site: Site, account: Account) -> None:
        """Nodes without a pack do nothing; their time is accounted for before their number changes, and it is noted."""
        if self.empty_from < now:
            account.unfilled += (now - self.empty_from) * self.free_nodes * site.nodes.cores
        self.free_nodes = self.nodes - sum(p.nodes for p in self.packs)
        self.empty_from = now

    def view(self, site: Site, books: Mapping[int, Books], now: float) -> AllocationView:
        """As the planner sees it."""
        useful = self.walltime_s - site.allocation.margin_s
        return AllocationView(
            allocation_id=str(self.number),
            nodes=self.nodes,
            packs=tuple(_pack_view(p, books, now) for p in self.packs),
            accepts=not self.ending,
            running=self.running,
            in_window=self.in_window,
            asked=self.submitted,
            since=self.started if self.running else None,
            seconds_left=useful - (now - self.started if self.running else 0.0),
        )


def _pack_view(pack: SimPack, books: Mapping[int, Books], now: float) -> PackView:
    model = pack.model
    said = model if model is not None and now >= model.ready_at else None
    return PackView(
        pack_id=pack.holder,
        kind="work",
        nodes=pack.nodes,
        parts=tuple(_part_view(pack, task, books[task], said, now) for task in sorted(pack.tasks)),
        cores=said.cores if said is not None else 0,
        job_cores=said.jobs.cores_waited_for(said.cores) if said is not None else None,
    )


def _part_view(pack: SimPack, task: int, books: Books, said: PackModel | None, now: float) -> PartView:
    held = books.held(pack.holder)
    if pack.model is not None:
        held -= pack.model.not_taken.jobs if task == JOBS else pack.model.not_taken.events
    if said is None:
        return PartView(task_id=task, of_jobs=task == JOBS, held=held)
    if task == JOBS:
        return PartView(task_id=task, of_jobs=True, backlog_s=0.0, held=held, idle=not said.jobs.started)
    return PartView(
        task_id=task,
        backlog_s=said.backlog_s(now),
        waiting=held,
        held=held,
        idle=not said.work_left,
    )
