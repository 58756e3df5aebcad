"""Where MPI jobs run: on free nodes, in new allocations, or on nodes that a work pack has to leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hpcpanda.planning.actions import FreeNodes, PackPlan, Share
from hpcpanda.planning.packs import Ground, Pool
from hpcpanda.planning.sharing import job_seconds
from hpcpanda.planning.situation import AllocationView, PackView, Situation, TaskView


def place(pools: Sequence[Pool], grounds: Sequence[Ground]) -> None:
    """Start as many as there are nodes for, each on its own."""
    for pool in pools:
        nodes = pool.job.nodes
        for ground in grounds:
            while pool.left and ground.free >= nodes and ground.seconds >= pool.job.walltime_s:
                share = Share(task_id=pool.task.task_id, events=1)
                ground.start(PackPlan(kind="mpi-job", nodes=nodes, work=(share,)))
                pool.left -= 1
                pool.placed = True


class Waiting:
    """MPI jobs for which there are no nodes now: which allocation they wait for, and which packs make place.

    One pack an allocation is freed at a time, and what is free beside it is kept for the job meanwhile: otherwise
    work packs would take the nodes again, and packs would be freed for ever.
    """

    def __init__(self, s: Situation, tasks: Mapping[int, TaskView], grounds: Sequence[Ground]) -> None:
        self._site = s.site
        self._tasks = tasks
        self._grounds = {g.allocation_id: g for g in grounds if g.allocation_id is not None}
        self._hosts = [a for a in s.allocations if a.accepts and a.running]
        self._draining = {a.allocation_id for a in self._hosts if any(p.draining for p in a.packs)}
        self.waits: set[int] = set()
        """Tasks with jobs that stay here."""

    def make_place(self, pools: Sequence[Pool]) -> Iterator[FreeNodes]:
        """Free packs for jobs that were not placed."""
        for pool in pools:
            hosts = [
                a
                for a in self._hosts
                if a.usable_nodes >= pool.job.nodes and a.seconds_left >= pool.job.walltime_s
            ]
            if not pool.left or not hosts:
                continue
            self.waits.add(pool.task.task_id)
            unserved = pool.left - sum(self._coming(a, pool) // pool.job.nodes for a in hosts)
            for host in hosts:
                if unserved <= 0:
                    break
                if self._within_reach(host) < pool.job.nodes:
                    continue
                freed = self._freed(host, pool.job.nodes)
                unserved -= max(1, self._free(host) // pool.job.nodes)
                self._keep(host, pool.job.nodes)
                if freed is not None:
                    self._draining.add(host.allocation_id)
                    yield FreeNodes(
                        allocation_id=host.allocation_id,
                        pack_id=freed.pack_id,
                        for_task=pool.task.task_id,
                    )

    def _coming(self, host: AllocationView, pool: Pool) -> int:
        """Nodes of MPI jobs that end early enough for another."""
        latest = host.seconds_left - pool.job.walltime_s
        nodes = 0
        for pack in host.packs:
            task = self._tasks.get(pack.parts[0].task_id) if pack.kind == "mpi-job" and pack.parts else None
            if task is not None and task.job is not None:
                nodes += pack.nodes if job_seconds(task, task.job, self._site) <= latest else 0
        return nodes

    def _free(self, host: AllocationView) -> int:
        ground = self._grounds.get(host.allocation_id)
        return ground.free if ground is not None else 0

    def _within_reach(self, host: AllocationView) -> int:
        """Nodes that are free, or would be without work packs."""
        return self._free(host) + sum(p.nodes for p in host.packs if p.kind == "work")

    def _freed(self, host: AllocationView, nodes: int) -> PackView | None:
        """The smallest pack that makes enough place, or else the largest; none while another is making place."""
        if host.allocation_id in self._draining:
            return None
        missing = nodes - self._free(host)
        packs = sorted((p for p in host.packs if p.kind == "work"), key=lambda p: (p.nodes, p.job_cores or 0))
        enough = (p for p in packs if p.nodes >= missing)
        return next(enough, packs[-1] if packs else None)

    def _keep(self, host: AllocationView, nodes: int) -> None:
        """Nothing else takes the nodes that are free already."""
        ground = self._grounds.get(host.allocation_id)
        if ground is not None:
            ground.free -= min(ground.free, nodes)
