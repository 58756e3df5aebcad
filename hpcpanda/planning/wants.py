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
from hpcpanda.planning.requests import ask
from hpcpanda.planning.sharing import Sharing
from hpcpanda.planning.situation import Situation

REFILL_BELOW: Final = 0.8
"""More work is fetched for a pack whose backlog is below this share of the look-ahead."""
_LEAST_S: Final = 0.001
_ALIKE: Final = 2.0
"""Packs of which none has more than so many times the time left of another are asked for together."""


def wants(
    s: Situation,
    sharing: Sharing,
    targets: Sequence[Target],
    grounds: Sequence[Ground],
    actions: Sequence[Action],
    waits: set[int],
    offer: tuple[Target, int] | None = None,
) -> Iterator[Want]:
    """What to ask for once the actions are chosen: for packs jobs, then events; then anything for free nodes.

    ``offer``: a pack that would give way, and to events above which priority.
    """
    if s.draining:
        return
    useless = {a.task_id for a in actions if isinstance(a, GiveBack)}
    staging = {t.task_id for t in s.tasks if t.staging}
    asking = _Asking(s, sharing, tuple(sorted(useless | waits | staging)), mpi=not waits)
    told = [asking.told(t) for t in targets if asking.tells(t)]
    yield from asking.jobs(told)
    yield from asking.refills(told)
    yield from asking.events(told)
    yield from asking.anything(grounds, [a for a in actions if isinstance(a, NewAllocation)])
    if offer is not None:
        yield asking.urgent(*offer)


@dataclass(slots=True)
class _Told:
    """A pack that says how it is doing, and what of it is free."""

    target: Target
    cores: int
    streams: int
    """Cores that events are kept at hand for."""
    horizon: float
    """Seconds for which it is to have work in hand."""

    @property
    def missing(self) -> int:
        """Cores for which it has no jobs within the horizon."""
        target = self.target
        if target.makes_place:
            return 0
        missing = self.cores - target.load.cores
        if target.load.seconds < REFILL_BELOW * self.horizon:
            missing = max(missing, self.cores * (1 - target.load.seconds / self.horizon))
        return int(missing)

    @property
    def without_events(self) -> bool:
        """Whether it streams nothing, or has nothing left of what it streams."""
        target = self.target
        if target.stream is None:
            return True
        part = target.part
        return part is not None and part.idle and target.stream not in target.shares


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

    def told(self, target: Target) -> _Told:
        cores = self.sharing.cores(target)
        return _Told(
            target=target,
            cores=cores,
            streams=int(self.sharing.stream_cores(target)),
            horizon=min(self.site.allocation.lookahead_s, target.seconds),
        )

    def room(self, nodes: int, seconds: float) -> Room:
        return replace(Room.of_site(self.site), nodes=nodes if self.mpi else 1, seconds=seconds)

    def jobs(self, packs: Sequence[_Told]) -> Iterator[Want]:
        """One question for all packs, with about as much time left, whose cores jobs do not hold, or soon will not.

        Packs with far less time get one of their own, so that not more long jobs come than there is time for.
        """
        short = [(pack, missing) for pack in packs if (missing := pack.missing) >= 1]
        short.sort(key=lambda pair: -pair[0].target.seconds)
        nodes = {a.allocation_id: a.usable_nodes for a in self.s.allocations} if short else {}
        while short:
            last = short[0][0].target
            alike = [pair for pair in short if pair[0].target.seconds >= last.seconds / _ALIKE]
            short = short[len(alike) :]
            yield Want(
                cores=sum(missing for _, missing in alike),
                seconds=max(pack.horizon for pack, _ in alike),
                only="jobs",
                room=self.room(nodes[last.allocation_id or ""], last.seconds),
                without=self.without,
            )

    def refills(self, packs: Sequence[_Told]) -> Iterator[Want]:
        """More events for packs that will soon have none: one question a task, that fills all its packs up."""
        states = {
            t.task_id for t in self.s.tasks if t.state is TaskState.RUNNING and not t.fault and not t.staging
        }
        missing: dict[int, list[tuple[int, float]]] = {}
        low: set[int] = set()
        for pack in packs:
            part, horizon = pack.target.part, pack.horizon
            if part is None or part.backlog_s is None or part.backlog_s >= horizon or not pack.streams:
                continue
            if part.task_id not in states or part.task_id in pack.target.shares:
                continue
            missing.setdefault(part.task_id, []).append((pack.streams, horizon - part.backlog_s))
            if part.backlog_s < REFILL_BELOW * horizon:
                low.add(part.task_id)
        for task_id in sorted(low):
            cores = sum(c for c, _ in missing[task_id])
            work = sum(c * seconds for c, seconds in missing[task_id])
            yield Want(cores=cores, seconds=work / cores, task_id=task_id)

    def events(self, packs: Sequence[_Told]) -> Iterator[Want]:
        """One question for all packs with free cores and no events."""
        idle = [p for p in packs if p.streams >= 1 and p.without_events]
        if idle:
            yield Want(
                cores=sum(p.streams for p in idle),
                seconds=max(p.horizon for p in idle),
                only="events",
                without=self.without,
            )

    def urgent(self, target: Target, above: int) -> Want:
        """Events for a pack that would give way to them."""
        return Want(
            cores=self.sharing.cores(target),
            seconds=min(self.site.allocation.lookahead_s, target.seconds),
            only="events",
            without=self.without,
            above=above,
        )

    def anything(self, grounds: Sequence[Ground], planned: Sequence[NewAllocation]) -> Iterator[Want]:
        """Work for nodes without a pack, and for allocations that could be asked for."""
        lookahead = self.site.allocation.lookahead_s
        unlimited = WorkAtHand(loose=(LooseWork(nodes=self.site.node_limit),))
        spots = [(shape.nodes, shape.useful_s) for shape in ask(self.s, unlimited, planned).shapes]
        spots += [(g.free, g.seconds) for g in grounds if g.shape is None and g.free]
        if spots:
            nodes, seconds = max(spots)
            yield Want(
                cores=sum(n for n, _ in spots) * self.site.nodes.cores,
                seconds=max(min(lookahead, max(s for _, s in spots)), _LEAST_S),
                room=self.room(nodes, seconds),
                without=self.without,
            )
