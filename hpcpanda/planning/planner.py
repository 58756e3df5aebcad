"""What to do next, from where things are: a pure function, the same for the running edge, `status` and tests.

Each round looks at all tasks and allocations anew. Work goes first to packs that run, then to free nodes of running
allocations, then into new allocations, always inside the site's limits. Jobs come before events, which take the cores
that jobs leave. What cannot be placed is given back.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final

from hpcpanda.packing.requests import LooseWork, RefusalReason, WorkAtHand
from hpcpanda.packing.rigid import RigidJob
from hpcpanda.planning import mpi_jobs
from hpcpanda.planning.actions import (
    Action,
    AddPack,
    EndPart,
    FeedPack,
    FreeNodes,
    GiveBack,
    NewAllocation,
    PackPlan,
    Plan,
    Reason,
    Share,
)
from hpcpanda.planning.giving_way import GivingWay
from hpcpanda.planning.numbers import numbers
from hpcpanda.planning.packs import Ground, Pool, Target
from hpcpanda.planning.pointless import pointless
from hpcpanda.planning.requests import Asked, ask, startup_s
from hpcpanda.planning.sharing import UNKNOWN_EVENT_SECONDS, Sharing, event_nodes, job_seconds, whole
from hpcpanda.planning.situation import Situation
from hpcpanda.planning.tasks import Tasks, urgent
from hpcpanda.planning.wants import REFILL_BELOW, wants

SHORTEST_USE_S: Final = 3.0
"""An allocation with less time than this left is given nothing more."""


def make_plan(situation: Situation) -> Plan:
    """Work out what to do next."""
    return _Round(situation).plan()


class _Round:
    """One planning round: what is left of work, nodes and slots while actions are chosen."""

    def __init__(self, situation: Situation) -> None:
        self._s = situation
        self._site = situation.site
        self._tasks = {t.task_id: t for t in situation.tasks}
        self._sharing = Sharing(self._site, self._tasks, startup_s=startup_s(situation))
        usable = [a for a in situation.allocations if a.accepts and a.seconds_left > SHORTEST_USE_S]
        self._targets = [
            self._sharing.target(a, p) for a in usable for p in a.packs if p.kind == "work" and not p.draining
        ]
        self._hosts = [a for a in usable if a.running]
        self._todo = Tasks(situation, self._targets)
        self._grounds = [
            Ground(free=a.free_nodes, seconds=a.seconds_left, allocation_id=a.allocation_id)
            for a in usable
            if a.running and a.free_nodes
        ]
        self._freed: tuple[FreeNodes, ...] = ()
        self._way: GivingWay | None = None
        self._waits: set[int] = set()
        self._asked = Asked()

    def plan(self) -> Plan:
        """Choose actions, then what to ask for."""
        if not self._s.draining:
            self._feed()
            mpi_jobs.place(self._todo.mpi, self._grounds)
            running, new = self._grounds, self._new_grounds()
            mpi_jobs.place(self._todo.mpi, new)
            waiting = mpi_jobs.Waiting(self._s, self._tasks, running)
            self._free(tuple(waiting.make_place(self._todo.mpi)))
            self._waits = waiting.waits
            self._grounds = [*running, *new]
            self._give_way()
            self._fill()
            self._feed_late()
        actions = tuple(self._actions())
        offer = self._way.offer if self._way is not None else None
        asked = tuple(
            wants(self._s, self._sharing, self._targets, self._grounds, actions, self._waits, offer)
        )
        return Plan(
            actions=actions,
            wants=asked,
            reasons=self._todo.reasons,
            numbers=numbers(self._s, self._todo),
            refusals=self._asked.refusals,
        )

    # ---- packs that there are ----

    def _feed(self) -> None:
        """Give work to packs: jobs that can start within the look-ahead, events beside them.

        Packs that run come first; those that still queue get what is left, where there are no free nodes for it.
        """
        running = [t for t in self._targets if t.running]
        queued = [t for t in self._targets if not t.running and not self._grounds]
        for targets in (running, queued):
            for pool in self._todo.jobs:
                self._sharing.jobs(pool, self._for(pool, targets), self._site.allocation.lookahead_s)
            for pool in self._todo.events:
                self._sharing.events(pool, self._streams_for(pool, targets), ahead=True)

    def _for(self, pool: Pool, targets: list[Target]) -> list[Target]:
        return [t for t in targets if not self._todo.backs_off(pool) or t.has(pool.task.task_id)]

    def _streams_for(self, pool: Pool, targets: list[Target]) -> list[Target]:
        """Packs that stream the task, and as many without a stream as its events can use: what is at hand was asked for
        these, unless those that stream it have run low."""
        task_id = pool.task.task_id
        open_ = [t for t in targets if self._sharing.stream_cores(t) >= 1]
        chosen = [t for t in open_ if t.stream == task_id]
        low = REFILL_BELOW * self._site.allocation.lookahead_s
        hungry = [t for t in chosen if self._sharing.event_backlog(pool.task, t) < low]
        wanted = whole(event_nodes(pool.task, pool.left, self._site)) - sum(t.nodes for t in hungry)
        for target in open_:
            if (
                wanted > 0
                and target.stream is None
                and not target.had(task_id)
                and not self._todo.backs_off(pool)
            ):
                chosen.append(target)
                wanted -= target.nodes
        return chosen

    # ---- nodes without a pack ----

    def _new_grounds(self) -> list[Ground]:
        """New allocations that could be asked for, for what is left."""
        work = WorkAtHand(loose=tuple(self._loose()), rigid=tuple(self._rigid()))
        if work.loose or work.rigid:
            self._asked = ask(self._s, work)
        return [Ground(free=shape.nodes, seconds=shape.useful_s, shape=shape) for shape in self._asked.shapes]

    def _loose(self) -> Iterator[LooseWork]:
        site, longest = self._site, self._todo.largest.seconds
        jobs = self._todo.fresh(self._todo.jobs)
        for pool, nodes in zip(jobs, self._sharing.job_nodes(jobs, longest), strict=True):
            expected = job_seconds(pool.task, pool.job, site)
            yield LooseWork(
                nodes=whole(nodes),
                seconds=pool.job.walltime_s,
                node_seconds=pool.left * expected * pool.job.cores / site.nodes.cores,
                urgent=urgent(self._s, pool.task),
            )
        for pool in self._todo.fresh(self._todo.events):
            cost = pool.task.event_seconds or UNKNOWN_EVENT_SECONDS
            yield LooseWork(
                nodes=whole(event_nodes(pool.task, pool.left, site)),
                seconds=min(cost, longest),
                node_seconds=pool.left * cost / site.nodes.cores,
                urgent=urgent(self._s, pool.task),
            )
        for _ in self._todo.merges:
            yield LooseWork(nodes=1)

    def _rigid(self) -> Iterator[RigidJob]:
        for pool in self._todo.fresh(self._todo.mpi):
            nodes = pool.job.nodes
            yield RigidJob(
                nodes=nodes,
                seconds=pool.job.walltime_s,
                count=max(1, min(pool.left, self._site.node_limit // nodes)),
                urgent=urgent(self._s, pool.task),
            )

    def _free(self, freed: tuple[FreeNodes, ...]) -> None:
        """Packs that are to end get no further jobs, and nothing more when their jobs have ended."""
        targets = {(t.allocation_id, t.view.pack_id): t for t in self._targets if t.view}
        ending: list[FreeNodes] = []
        for free in freed:
            target = targets.get((free.allocation_id, free.pack_id))
            if target is None or not target.has_jobs:
                ending.append(free)
            if target is not None:
                self._make_place(target)
        self._freed = tuple(ending)

    def _make_place(self, target: Target) -> None:
        target.makes_place = True
        if not target.has_jobs:
            self._targets.remove(target)
        for pool in self._todo.jobs if target.has_jobs else self._todo.pools:
            target.take_back(pool)

    def _give_way(self) -> None:
        """Packs of clearly less urgent events make place; the pack that takes their nodes starts as soon as they end."""
        self._way = GivingWay(self._s, self._tasks, self._targets, self._grounds)
        for pool in self._todo.fresh(self._todo.events):
            target = self._way.give_way(pool)
            if target is None or target.view is None or target.allocation_id is None:
                continue
            where = {"allocation_id": target.allocation_id, "pack_id": target.view.pack_id}
            self._freed += (FreeNodes(**where, for_task=pool.task.task_id),)
            self._targets.remove(target)
            for other in self._todo.pools:
                target.take_back(other)
            ground = Ground(free=target.nodes, seconds=target.seconds, allocation_id=target.allocation_id)
            self._sharing.new_pack(ground, (), (pool,))
            ground.free = 0  # what is left of them is free when the pack has ended
            self._grounds.append(ground)

    def _fill(self) -> None:
        """Plan merges and work packs for nodes without a pack."""
        for task in self._todo.merges:
            ground = next((g for g in self._grounds if g.free), None)
            if ground is not None:
                ground.start(PackPlan(kind="merge", nodes=1, work=(Share(task_id=task.task_id, events=0),)))
                self._todo.reasons[task.task_id] = Reason.STARTING
        for ground in self._grounds:
            while self._sharing.new_pack(
                ground, self._todo.fresh(self._todo.jobs), self._todo.fresh(self._todo.events)
            ):
                pass

    # ---- what is left ----

    def _feed_late(self) -> None:
        """No more nodes are to be had: packs get what they can do later."""
        planned = [t for g in self._grounds for t in g.targets]
        waiting = [t for t in self._targets if not t.running]
        for targets in ([t for t in self._targets if t.running], [*waiting, *planned]):
            for pool in self._todo.jobs:
                self._sharing.jobs(pool, self._for(pool, targets), inf)
        for pool in self._todo.events:
            if not pool.left:
                continue
            targets = [*self._targets, *planned]
            mine = [t for t in targets if t.stream == pool.task.task_id and self._sharing.free_cores(t) >= 1]
            mine = mine or ([] if self._todo.backs_off(pool) else self._exchange(pool))
            self._sharing.events(pool, mine, ahead=False)

    def _exchange(self, pool: Pool) -> list[Target]:
        """Packs whose stream has nothing to do and makes place for another."""
        wanted = whole(event_nodes(pool.task, pool.left, self._site))
        chosen: list[Target] = []
        for target in self._targets:
            idle = target.part is not None and target.part.idle and target.stream not in target.shares
            if wanted <= 0 or not idle or target.ends is not None or target.had(pool.task.task_id):
                continue
            if self._sharing.free_cores(target) >= 1:
                target.ends, target.stream = target.stream, pool.task.task_id
                chosen.append(target)
                wanted -= target.nodes
        return chosen

    # ---- the plan ----

    def _actions(self) -> Iterator[Action]:
        for target in self._targets:
            yield from self._feeding(target)
        for ground in self._grounds:
            yield from self._starting(ground)
        yield from self._freed
        yield from self._merging_beside()
        if not self._s.draining:
            fed = {t.allocation_id for t in self._targets if t.shares and t.allocation_id is not None}
            yield from pointless(self._s, fed)
        for pool in self._todo.pools:
            self._conclude(pool)
        for task in self._todo.merges:
            if self._todo.reasons[task.task_id] is Reason.WAITING_FOR_NODES:
                self._todo.reasons[task.task_id] = self._limit(1)
        for task_id in self._todo.given_back:
            yield GiveBack(task_id=task_id)

    def _merging_beside(self) -> Iterator[Action]:
        """What finds no node is merged where packs run, on a core that these have, too: the rest of settled tasks first,
        since somebody waits for it, then files of tasks that go on. For those no node is taken from work, nor an allocation
        asked for."""
        reasons = self._todo.reasons
        settled = [t for t in self._todo.merges if reasons[t.task_id] is Reason.WAITING_FOR_NODES]
        if not settled and not self._todo.partial:
            return
        hosts = sorted(
            (a for a in self._hosts if all(p.kind != "merge" for p in a.packs)), key=lambda a: a.seconds_left
        )
        if any(p.parts and all(part.idle for part in p.parts) for a in hosts for p in a.packs):
            settled = []  # a node is free in a moment
        for task in (*settled, *self._todo.partial) if not self._s.draining else ():
            if hosts:
                if task in settled:
                    reasons[task.task_id] = Reason.STARTING
                share = Share(task_id=task.task_id, events=0)
                pack = PackPlan(kind="merge", nodes=0, work=(share,))
                yield AddPack(allocation_id=hosts.pop().allocation_id, pack=pack)

    def _feeding(self, target: Target) -> Iterator[Action]:
        if target.view is None or target.allocation_id is None:
            return
        where = {"allocation_id": target.allocation_id, "pack_id": target.view.pack_id}
        if target.ends is not None:
            yield EndPart(task_id=target.ends, **where)
        for task_id, count in target.shares.items():
            if self._todo.reasons[task_id] is Reason.NO_WORK:
                self._todo.reasons[task_id] = Reason.RUNNING if target.view.cores else Reason.STARTING
            yield FeedPack(share=Share(task_id=task_id, events=count), **where)

    def _starting(self, ground: Ground) -> Iterator[Action]:
        packs = tuple(ground.plans())
        for pack in packs:
            for share in pack.work:
                self._todo.reasons[share.task_id] = Reason.STARTING
        if ground.allocation_id is not None:
            for pack in packs:
                yield AddPack(allocation_id=ground.allocation_id, pack=pack)
        elif packs and ground.shape is not None:
            nodes = max(ground.used, ground.shape.fewest_nodes)
            because = ground.shape.because
            yield NewAllocation(
                nodes=nodes,
                walltime_s=ground.shape.walltime_s,
                packs=packs,
                why=f"{nodes} node{'s' * (nodes != 1)} for {ground.shape.walltime_s:.0f} s; {because.sentence}",
                because=because,
                in_window=ground.shape.in_window,
            )

    def _conclude(self, pool: Pool) -> None:
        """What is left of a task is given back, unless an allocation is going to have the nodes."""
        task_id = pool.task.task_id
        if not pool.left:
            return
        waits = task_id in self._waits
        if not pool.placed:
            backs_off = Reason.BACKING_OFF if self._todo.backs_off(pool) else None
            nodes = pool.job.nodes if pool.task.job is not None else 1
            self._todo.reasons[task_id] = (
                Reason.WAITING_FOR_NODES if waits else backs_off or self._limit(nodes)
            )
        if not waits:
            self._todo.given_back.append(task_id)

    def _limit(self, nodes: int) -> Reason:
        """Why there is no further allocation."""
        new = [g for g in self._grounds if g.shape is not None and g.used]
        slots = self._site.limits.allocations - len(self._s.allocations) - len(new)
        taken = sum(a.nodes for a in self._s.allocations) + sum(g.used for g in new)
        if self._s.now < self._s.submit_not_before:
            return Reason.SUBMISSION_FAILING
        if slots <= 0:
            return Reason.ALLOCATION_LIMIT
        if self._s.windows is None and self._asked.refused(RefusalReason.ALREADY_QUEUED):
            return Reason.NO_WINDOW
        if self._s.windows is None or self._site.node_limit - taken < max(nodes, self._site.queue.min_nodes):
            return Reason.NODE_LIMIT
        return Reason.NO_WINDOW
