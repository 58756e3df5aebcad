"""Handing out jobs: which node is given which job now. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final

from hpcpanda.allocation.job_account import Job, NodeAccount, Run, TaskAccount
from hpcpanda.allocation.job_messages import JobBatch, JobSlice, JobTask, JobToAgent
from hpcpanda.allocation.job_order import BAND_S, Reservations, in_order
from hpcpanda.domain import splitting
from hpcpanda.events.streaming import share

_REACH_S: Final = 1.0
"""Time from here to a job's start that is allowed for beside its walltime."""

Batches = defaultdict[int, list[JobSlice]]


@dataclass(frozen=True, slots=True)
class JobSend:
    """A message for the job agent of a rank."""

    rank: int
    message: JobToAgent


class HandOut:
    """Gives jobs of the tasks to the nodes."""

    def __init__(self, tasks: dict[int, TaskAccount], nodes: list[NodeAccount], deadline: float) -> None:
        self._tasks = tasks
        self._nodes = nodes
        self._deadline = deadline
        self._reservations = Reservations()
        self._next_ticket = 1

    def feed(self, now: float, nodes: Collection[NodeAccount] | None = None) -> list[JobSend]:
        """Give jobs to those of all nodes that have room, or of these when only theirs has changed."""
        self.give_up_hopeless(now)
        if self._reservations.prune() or nodes is None:
            nodes = self._nodes
        taking = [n for n in nodes if n.usable]
        batches: Batches = defaultdict(list)
        tasks = [t for t in self._tasks.values() if t.has_waiting]
        while taking and any(self._serve(t, taking, batches, now) for t in in_order(tasks, len(self._nodes))):
            tasks = [t for t in tasks if t.has_waiting]
        for task in self._tasks.values():
            for job in list(task.cloning):
                self._clone(job, taking, batches, now)
        return self._sends(batches)

    def _serve(self, task: TaskAccount, nodes: list[NodeAccount], batches: Batches, now: float) -> bool:
        """Give jobs of a task to one node; whether there was one."""
        best: tuple[float, NodeAccount, int] | None = None
        for node in nodes:
            count = self._reservations.allows(task, node, now)
            if not count or not self._has_for(task, node):
                continue
            # Short jobs go where least is, for they pass; others are packed, so that room for large ones stays.
            key = node.load_s if task.short else -(node.whole - node.room).share_of(node.whole)
            if best is None or key < best[0]:
                best = (key, node, count)
        rivals = [t for t in self._tasks.values() if t is not task and t.has_waiting]
        if best is None:
            able = (n for n in self._nodes if self._has_for(task, n))
            self._reservations.make(task, rivals, able, now)
            return False
        _, node, count = best
        self._reservations.drop(task)
        if rivals:
            count = min(count, max(1, int(BAND_S * len(self._nodes) / task.charge_s)))
        if task.short:
            count = share(count, task.waiting, sum(n.usable for n in self._nodes))
        for job in task.take(count, lambda avoid: self._tolerates(node, avoid)):
            self._give(job, node, batches, now)
            if task.request.clones > 1:
                task.cloning[job] = None
        return True

    def _has_for(self, task: TaskAccount, node: NodeAccount) -> bool:
        return node.usable and task.can_serve(lambda avoid: self._tolerates(node, avoid))

    def _tolerates(self, node: NodeAccount, avoid: frozenset[int]) -> bool:
        """Whether a job may be tried on a node: it has not failed there, or there is no other."""
        return node.usable and (
            node.rank not in avoid or all(n.rank in avoid for n in self._nodes if n.usable)
        )

    def _clone(self, job: Job, nodes: list[NodeAccount], batches: Batches, now: float) -> None:
        """Start further runs of a job where there is room, each on a node of its own if there are several."""
        task = job.task
        alone = sum(n.usable for n in self._nodes) == 1
        for node in nodes:
            while (
                job.starts < task.request.clones
                and (alone or node.rank not in job.tickets.values())
                and self._tolerates(node, job.avoid)
                and self._reservations.allows(task, node, now)
            ):
                self._give(job, node, batches, now)
        if job.starts >= task.request.clones:
            task.cloning.pop(job, None)

    def _give(self, job: Job, node: NodeAccount, batches: Batches, now: float) -> None:
        task, ticket = job.task, self._next_ticket
        self._next_ticket += 1
        job.tickets[ticket] = node.rank
        job.starts += 1
        task.runs += 1
        task.charge(task.charge_s)
        run = Run(
            job,
            held=None if task.short else task.space,
            load_s=task.load_s if task.short else 0.0,
            until=now + task.request.walltime_s,
            charge_s=task.charge_s,
        )
        node.give(ticket, run)
        _append(
            batches[node.rank],
            JobSlice(
                ticket=ticket,
                task_id=task.task_id,
                epoch=job.epoch,
                first=job.number,
                last=job.number + 1,
                attempt=job.attempt,
            ),
        )

    def _sends(self, batches: Batches) -> list[JobSend]:
        more = any(t.has_waiting for t in self._tasks.values())
        sends: list[JobSend] = []
        for rank, slices in batches.items():
            node = self._nodes[rank]
            for task_id in dict.fromkeys(s.task_id for s in slices):
                if task_id not in node.knows:
                    node.knows.add(task_id)
                    sends.append(JobSend(rank, JobTask(task_id=task_id, spec=self._tasks[task_id].spec)))
            contents = tuple(self._contents(slices))
            sends.append(JobSend(rank, JobBatch(slices=tuple(slices), more=more, contents=contents)))
        return sends

    def _contents(self, given: list[JobSlice]) -> Iterator[tuple[int, splitting.JobSlice]]:
        """What jobs have to do that are parts of something, by ticket."""
        for part in given:
            known = self._tasks[part.task_id].slices
            for n in range(part.last - part.first) if known else ():
                yield part.ticket + n, known[part.first + n]

    def give_up_hopeless(self, now: float) -> None:
        """What no node can finish in time, or no node is left for, stays undone."""
        lost = all(n.out for n in self._nodes)
        for task in self._tasks.values():
            if lost or now + task.request.walltime_s + _REACH_S > self._deadline:
                task.give_up()
                self._reservations.drop(task)


def _append(slices: list[JobSlice], new: JobSlice) -> None:
    """Add a job, to the last slice if it goes on there."""
    if slices:
        last = slices[-1]
        count = last.last - last.first
        if replace(new, ticket=last.ticket, first=last.first, last=last.last) == last and (
            (new.first, new.ticket) == (last.last, last.ticket + count)
        ):
            slices[-1] = replace(last, last=new.last)
            return
    slices.append(new)
