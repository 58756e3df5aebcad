"""How work is shared out among packs: jobs where they can be started in time, events beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.site import Site
from hpcpanda.planning.packs import Ground, Load, Needs, Pool, Target
from hpcpanda.planning.situation import AllocationView, PackView, TaskView
from hpcpanda.planning.sizing import nodes_together

UNKNOWN_EVENT_SECONDS: Final = 1.0
"""Taken for the cost of an event of which nothing is known."""
_AHEAD: Final = 2.0
"""A pack is given events for so many look-aheads before free nodes get the rest."""
_SOON: Final = 6.0
"""Jobs that last for more look-aheads keep events from a pack that they fill: those would wait too long in it."""
_SHORTEST_JOB_S: Final = 0.01
_SLACK: Final = 1e-9


def job_seconds(task: TaskView, job: JobRequest, site: Site) -> float:
    """How long a job of a task is expected to run: as predicted, by what is known of its cost, or its time limit.

    That decides how many are planned for a pack; whether one fits is decided by its time limit.
    """
    if task.job_seconds is not None:
        return min(job.walltime_s, max(task.job_seconds, _SHORTEST_JOB_S))
    if task.event_seconds is None:
        return job.walltime_s
    cores = job.cores if job.nodes == 1 else job.nodes * site.nodes.cores
    return min(job.walltime_s, max(task.event_seconds / cores, _SHORTEST_JOB_S))


def event_nodes(task: TaskView, events: int, site: Site) -> float:
    """Nodes that so many events keep busy for the look-ahead."""
    useful = site.allocation.walltime_s - site.allocation.margin_s
    horizon = min(site.allocation.lookahead_s, useful)
    work = events * (task.event_seconds or UNKNOWN_EVENT_SECONDS)
    return min(work / (site.nodes.cores * horizon), float(events))


def whole(nodes: float) -> int:
    """Whole nodes, at least one."""
    return max(1, math.ceil(nodes - _SLACK))


class Sharing:
    """Gives work to packs: jobs where they can be started in time, events beside them."""

    def __init__(self, site: Site, tasks: dict[int, TaskView], *, startup_s: float = 0.0) -> None:
        self._site = site
        self._tasks = tasks
        self._startup_s = startup_s
        self._needs = Needs(site)

    def target(self, allocation: AllocationView, pack: PackView) -> Target:
        """A pack that there is."""
        load = Load(self._needs, pack.nodes)
        over, stream = pack.past, None
        for part in pack.parts:
            if part.of_jobs:
                task = self._tasks.get(part.task_id)
                if task is not None and task.job is not None:
                    load.add(task.job, part.held, job_seconds(task, task.job, self._site))
            elif part.task_id not in pack.past:
                over = over if stream is None else over | {stream.task_id}
                stream = part
        if pack.job_cores:
            load.at_least(pack.job_cores)
        return Target(
            nodes=pack.nodes,
            seconds=allocation.seconds_left - (0.0 if allocation.running else self._startup_s),
            load=load,
            allocation_id=allocation.allocation_id,
            view=pack,
            over=over,
            running=allocation.running,
            stream=stream.task_id if stream is not None else None,
            seen=stream,
        )

    def new_pack(self, ground: Ground, jobs: Sequence[Pool], events: Sequence[Pool]) -> bool:
        """Plan a work pack for all jobs that can run here and for the events of one task; whether there is one."""
        fitting = [p for p in jobs if p.left and p.job.walltime_s <= ground.seconds]
        stream = next((p for p in events if p.left), None)
        if not ground.free or not (fitting or stream):
            return False
        wanted = sum(self.job_nodes(fitting, ground.seconds))
        wanted += event_nodes(stream.task, stream.left, self._site) if stream else 0.0
        nodes = min(ground.free, whole(wanted))
        target = Target(nodes=nodes, seconds=ground.seconds, load=Load(self._needs, nodes))
        for pool in fitting:
            self.jobs(pool, [target], self._site.allocation.lookahead_s)
        if stream is not None:
            target.stream = stream.task.task_id
            target.give(stream, min(stream.left, math.ceil(stream.left * min(1.0, nodes / wanted) - _SLACK)))
        ground.targets.append(target)
        ground.free -= nodes
        return True

    def job_nodes(self, pools: Sequence[Pool], seconds: float) -> list[float]:
        """Nodes for each pool on which its jobs can be started within the look-ahead.

        Together they are fewer than alone where what one kind leaves of a node is enough for another.
        """
        alone = [self._nodes_alone(pool, seconds) for pool in pools]
        if len(pools) < 2 or sum(alone) <= 1:
            return alone
        together = nodes_together(pools, self._site, lambda p: job_seconds(p.task, p.job, self._site))
        return [nodes * min(1.0, together / sum(alone)) for nodes in alone]

    def _nodes_alone(self, pool: Pool, seconds: float) -> float:
        job = pool.job
        within = min(self._site.allocation.lookahead_s, seconds - job.walltime_s)
        node = Load(self._needs, 1)
        expected = job_seconds(pool.task, job, self._site)
        return pool.left / max(1, node.room_for(job, expected, max(0.0, within)))

    def jobs(self, pool: Pool, targets: Sequence[Target], horizon: float) -> None:
        """Give jobs to packs, no more than each can start within the horizon and in time to finish."""
        expected = job_seconds(pool.task, pool.job, self._site)
        caps: list[tuple[Target, int]] = []
        for target in sorted(targets, key=lambda t: t.load.seconds):
            if not (target.had(pool.task.task_id) or target.makes_place):
                within = min(horizon, target.seconds - pool.job.walltime_s)
                caps.append((target, target.load.room_for(pool.job, expected, within)))
        for target, count in share_out(pool.left, caps):
            target.load.add(pool.job, count, expected)
            target.give(pool, count)

    def events(self, pool: Pool, targets: Sequence[Target], *, ahead: bool) -> None:
        """Give events to packs that stream them: to those that run first, the others only wait.

        With ``ahead`` no more than for two look-aheads, where their cost is known: other nodes may want some.
        """
        for running in (True, False):
            caps = [
                (t, self._events_for(pool, t) if ahead else pool.left)
                for t in sorted(targets, key=lambda t: self.event_backlog(pool.task, t))
                if t.running is running
            ]
            for target, count in share_out(pool.left, caps):
                target.stream = pool.task.task_id
                target.give(pool, count)

    def _events_for(self, pool: Pool, target: Target) -> int:
        if not pool.task.event_seconds:
            return pool.left
        lookahead = self._site.allocation.lookahead_s
        backlog = self.event_backlog(pool.task, target)
        if backlog >= lookahead:  # enough: many small messages help nobody
            return 0
        missing = min(_AHEAD * lookahead, target.seconds) - backlog
        events = missing * self.stream_cores(target) / pool.task.event_seconds
        return min(pool.left, math.ceil(events)) if events > 0 else 0

    def event_backlog(self, task: TaskView, target: Target) -> float:
        """Seconds that the events in hand last; by what was given to the pack while it does not tell."""
        part = target.view.part(task.task_id) if target.view is not None else None
        if part is None:
            return 0.0
        if part.backlog_s is not None:
            return part.backlog_s
        cost = task.event_seconds or UNKNOWN_EVENT_SECONDS
        return part.held * cost / max(1.0, self.stream_cores(target))

    def cores(self, target: Target) -> int:
        """All cores of a pack."""
        return (target.view.cores if target.view is not None else 0) or target.nodes * self._site.nodes.cores

    def free_cores(self, target: Target) -> float:
        """Cores that jobs leave to events."""
        return max(0.0, self.cores(target) - target.load.cores)

    def stream_cores(self, target: Target) -> float:
        """Cores that events are kept at hand for: those that jobs leave, or one where jobs have all for a short time
        only: then events are there, and their set-up is done, when the first of them ends."""
        free = self.free_cores(target)
        if free < 1 and 0 < target.load.seconds <= _SOON * self._site.allocation.lookahead_s:
            return 1.0
        return free


def share_out(count: int, caps: Sequence[tuple[Target, int]]) -> Iterator[tuple[Target, int]]:
    """Divide so much among packs by their size, to none more than it can take; those in front get the most."""
    given = [0] * len(caps)
    left = min(count, sum(cap for _, cap in caps))
    while left > 0:
        batch, open_ = left, [i for i, (_, cap) in enumerate(caps) if given[i] < cap]
        nodes = sum(caps[i][0].nodes for i in open_)
        for i in open_:
            target, cap = caps[i]
            more = min(cap - given[i], math.ceil(batch * target.nodes / nodes), left)
            given[i] += more
            left -= more
    for (target, _), share in zip(caps, given, strict=True):
        if share:
            yield target, share
