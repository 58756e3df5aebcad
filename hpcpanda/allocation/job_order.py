"""In which order tasks are served, and how a large job gets room where small ones stream. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from hpcpanda.allocation.job_account import NodeAccount, TaskAccount
from hpcpanda.allocation.job_space import Space, shadow

BAND_S: Final = 30.0
"""Tasks that were served alike up to so many seconds of all nodes go by the size of their jobs."""

_LOOKED_AT: Final = 8
"""Nodes with most room that are looked at for a reservation."""


def in_order(tasks: Iterable[TaskAccount], nodes: int) -> list[TaskAccount]:
    """The least served first; of those served alike, the one with the biggest jobs."""
    band = BAND_S * nodes
    return sorted(tasks, key=lambda t: (int(t.service / band), -t.share, t.service, t.task_id))


@dataclass(frozen=True, slots=True)
class _Reservation:
    node: NodeAccount
    at: float
    """When the job has its room at latest."""


class Reservations:
    """Nodes that are kept for a job which fits on none now: one a task, one a node."""

    def __init__(self) -> None:
        self._of_task: dict[TaskAccount, _Reservation] = {}
        self._of_node: dict[NodeAccount, TaskAccount] = {}

    def prune(self) -> bool:
        """Drop those that nobody waits for any more; whether any node is kept or was."""
        kept = list(self._of_task)
        for task in kept:
            if not task.has_waiting:
                self.drop(task)
        return bool(kept)

    def allows(self, task: TaskAccount, node: NodeAccount, now: float) -> int:
        """How many jobs of a task a node can be given without delaying the job that it is kept for.

        Short jobs pass through at once and delay nothing.
        """
        count = node.fits(task)
        holder = self._of_node.get(node)
        if not count or holder is None or holder is task or task.short:
            return count
        at = self._of_task[holder].at
        if now + task.request.walltime_s <= at:
            return count
        spare = node.room - holder.space
        for run in node.runs.values():
            if run.held is not None and run.until <= at:
                spare += run.held
        return min(count, task.space.times_in(spare))

    def make(
        self, task: TaskAccount, rivals: Collection[TaskAccount], able: Iterable[NodeAccount], now: float
    ) -> None:
        """Keep one of the nodes that may run it for the task's next job, if smaller jobs could take the room that it
        waits for."""
        if task.short or all(t.short or t.space.covers(task.space) for t in rivals):
            self.drop(task)
            return
        able = list(able)
        if (held := self._of_task.get(task)) is not None:
            if held.node in able:
                return
            self.drop(task)
        free = [n for n in able if n not in self._of_node]
        free.sort(key=lambda n: (n.whole - n.room).share_of(n.whole))
        shadows = [(at, n) for n in free[:_LOOKED_AT] if (at := _free_at(n, task.space, now)) is not None]
        if shadows:
            at, node = min(shadows, key=lambda s: (s[0], s[1].rank))
            self._of_task[task] = _Reservation(node, at)
            self._of_node[node] = task

    def drop(self, task: TaskAccount) -> None:
        """The task has got its room, or needs none."""
        if (held := self._of_task.pop(task, None)) is not None:
            del self._of_node[held.node]


def _free_at(node: NodeAccount, wanted: Space, now: float) -> float | None:
    ends = [(max(r.until, now), r.held) for r in node.runs.values() if r.held is not None]
    found = shadow(node.room, ends, wanted)
    return None if found is None else found.at
