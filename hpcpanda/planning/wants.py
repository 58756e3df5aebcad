"""What to ask the dispatcher for: work for the cores and nodes that will have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hpcpanda.domain.room import Room
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import TaskState
from hpcpanda.packing.requests import LooseWork, WorkAtHand
from hpcpanda.planning.actions import Action, GiveBack, NewAllocation, Want
from hpcpanda.planning.packs import Ground, Target
from hpcpanda.planning.requests import shapes
from hpcpanda.planning.sharing import Sharing
from hpcpanda.planning.situation import Situation

REFILL_BELOW: Final = 0.8
"""More work is fetched for a pack whose backlog is below this share of the look-ahead."""
_LEAST_S: Final = 0.001


def wants(
    s: Situation,
    sharing: Sharing,
    targets: Sequence[Target],
    grounds: Sequence[Ground],
    actions: Sequence[Action],
    waits: set[int],
) -> Iterator[Want]:
    """What to ask for once the actions are chosen: for packs jobs, then events; then anything for free nodes."""
    if s.draining:
        return
    useless = {a.task_id for a in actions if isinstance(a, GiveBack)}
    staging = {t.task_id for t in s.tasks if t.staging}
    asking = _Asking(s, sharing, tuple(sorted(useless | waits | staging)), mpi=not waits)
    told = [t for t in targets if asking.tells(t)]
    yield from asking.jobs(told)
    yield from asking.refills(told)
    yield from asking.events(told)
    yield from asking.anything(grounds, [a for a in actions if isinstance(a, NewAllocation)])


@dataclass(frozen=True, slots=True)
class _Asking:
    s: Situation
    sharing: Sharing
    without: tuple[int, ...]
    mpi: bool
    """MPI jobs may come: none waits for nodes already."""

    @property
    def site(self) -> Site:
        return self.s.site

    def tells(self, target: Target) -> bool:
        """Whether a pack runs and says how it is doing, knowing all that it was told."""
        view = target.view
        return target.running and view is not None and view.cores > 0 and view.job_cores is not None

    def horizon(self, target: Target) -> float:
        return min(self.site.allocation.lookahead_s, target.seconds)

    def room(self, nodes: int, seconds: float) -> Room:
        return replace(Room.of_site(self.site), nodes=nodes if self.mpi else 1, seconds=seconds)

    def jobs(self, targets: Sequence[Target]) -> Iterator[Want]:
        """One question for all packs whose cores jobs do not hold, or soon will not."""
        missing = {id(t): self._missing(t) for t in targets}
        short = [t for t in targets if missing[id(t)] >= 1]
        if short:
            last = max(short, key=lambda t: t.seconds)
            nodes = next(a.usable_nodes for a in self.s.allocations if a.allocation_id == last.allocation_id)
            yield Want(
                cores=sum(missing[id(t)] for t in short),
                seconds=max(self.horizon(t) for t in short),
                only="jobs",
                room=self.room(nodes, last.seconds),
                without=self.without,
            )

    def _missing(self, target: Target) -> int:
        """Cores for which a pack has no jobs within the look-ahead."""
        if target.makes_place:
            return 0
        cores, horizon = self.sharing.cores(target), self.horizon(target)
        missing = cores - target.load.cores
        if target.load.seconds < REFILL_BELOW * horizon:
            missing = max(missing, cores * (1 - target.load.seconds / horizon))
        return int(missing)

    def refills(self, targets: Sequence[Target]) -> Iterator[Want]:
        """More events for packs that will soon have none: one question a task, that fills all its packs up."""
        states = {t.task_id: t for t in self.s.tasks}
        missing: dict[int, list[tuple[int, float]]] = {}
        low: set[int] = set()
        for target in targets:
            part, cores, horizon = target.part, int(self.sharing.stream_cores(target)), self.horizon(target)
            if part is None or part.backlog_s is None or not cores or part.task_id in target.shares:
                continue
            task = states.get(part.task_id)
            wanted = (
                task is not None and task.state is TaskState.RUNNING and not task.fault and not task.staging
            )
            if wanted and part.backlog_s < horizon:
                missing.setdefault(part.task_id, []).append((cores, horizon - part.backlog_s))
            if wanted and part.backlog_s < REFILL_BELOW * horizon:
                low.add(part.task_id)
        for task_id in sorted(low):
            cores = sum(c for c, _ in missing[task_id])
            work = sum(c * seconds for c, seconds in missing[task_id])
            yield Want(cores=cores, seconds=work / cores, task_id=task_id)

    def events(self, targets: Sequence[Target]) -> Iterator[Want]:
        """One question for all packs with free cores and no events."""
        idle = [
            t
            for t in targets
            if self.sharing.stream_cores(t) >= 1
            and (t.stream is None or (t.part is not None and t.part.idle and t.stream not in t.shares))
        ]
        if idle:
            yield Want(
                cores=sum(int(self.sharing.stream_cores(t)) for t in idle),
                seconds=max(self.horizon(t) for t in idle),
                only="events",
                without=self.without,
            )

    def anything(self, grounds: Sequence[Ground], planned: Sequence[NewAllocation]) -> Iterator[Want]:
        """Work for nodes without a pack, and for allocations that could be asked for."""
        lookahead = self.site.allocation.lookahead_s
        unlimited = WorkAtHand(loose=(LooseWork(nodes=self.site.node_limit),))
        spots = [(s.nodes, s.useful_s(self.site)) for s in shapes(self.s, unlimited, planned)]
        spots += [(g.free, g.seconds) for g in grounds if g.shape is None and g.free]
        if spots:
            nodes, seconds = max(spots)
            yield Want(
                cores=sum(n for n, _ in spots) * self.site.nodes.cores,
                seconds=max(min(lookahead, max(s for _, s in spots)), _LEAST_S),
                room=self.room(nodes, seconds),
                without=self.without,
            )
