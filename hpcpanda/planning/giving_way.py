"""Which pack of events gives way to more urgent events, and when: no node is free soon, the difference is clear, and the
pack has come to something.

The rule keeps packs from being started for nothing: each works on its events for :data:`LEAST_RUN_S`, and for at least as
long as it took to begin, before it can be interrupted. So at most half of the time is lost on beginnings, whatever comes.
A pack gives way to a higher priority only, so no two tasks can take turns. What it did not begin goes on later: here when
the more urgent events are finished or need fewer nodes, or elsewhere at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from hpcpanda.domain.task import MAX_PRIORITY
from hpcpanda.planning.packs import Ground, Pool, Target
from hpcpanda.planning.sharing import UNKNOWN_EVENT_SECONDS, event_nodes, whole
from hpcpanda.planning.situation import Situation, TaskView

CLEARLY: Final = 5
"""Events interrupt others only when their priority is higher by so much; a smaller difference orders what waits."""
LEAST_RUN_S: Final = 10.0
"""A pack works for so long before it gives way, seconds from its first finished event."""
WORTH_S: Final = 30.0
"""A pack with less time left than this does not give way: its nodes are gone soon."""
SOON_S: Final = 60.0
"""An allocation that is expected to wait no longer in the queue is there soon."""
_ROUNDS: Final = 2.0
"""A pack gives way only if so many of the more urgent events could follow each other on a core of it."""
_MORE: Final = 0.5
"""A task that has a pack gets another that gives way only if it can use this part of its nodes."""


class GivingWay:
    """Packs that can be interrupted. Jobs never are: a pack that has any does not give way.

    Args:
        s: where things are.
        tasks: all tasks by number.
        targets: work packs that can be given more.
        grounds: nodes without a pack.
    """

    def __init__(
        self,
        s: Situation,
        tasks: Mapping[int, TaskView],
        targets: Sequence[Target],
        grounds: Iterable[Ground],
    ) -> None:
        self._s = s
        self._tasks = tasks
        self._able = [t for t in targets if self._can_be_interrupted(t)]
        self._idle = [t for t in targets if _idles(t)] if self._able else []
        self._free_soon = bool(self._able) and any(g.free and self._is_soon(g) for g in grounds)

    def give_way(self, pool: Pool) -> Target | None:
        """The pack that is to make place for what is left of a task of events, if one is.

        Of the least urgent packs the smallest that is enough, or else the largest. It is not chosen again.
        """
        task_id = pool.task.task_id
        if not (pool.left and self._able) or self._free_soon:
            return None
        if any(not t.had(task_id) for t in self._idle):
            return None
        wanted = event_nodes(pool.task, pool.left, self._s.site)
        cost = pool.task.event_seconds or UNKNOWN_EVENT_SECONDS
        able = [
            t
            for t in self._able
            if pool.task.priority >= self._priority(t) + CLEARLY
            and t.seconds >= _ROUNDS * cost
            and (wanted >= _MORE * t.nodes or not self._has_pack(task_id))
        ]
        if not able:
            return None
        lowest = min(map(self._priority, able))
        packs = sorted((t for t in able if self._priority(t) == lowest), key=lambda t: t.nodes)
        chosen = next((t for t in packs if t.nodes >= whole(wanted)), packs[-1])
        self._able.remove(chosen)
        return chosen

    @property
    def offer(self) -> tuple[Target, int] | None:
        """The pack that would give way next, and the priority above which events would get its nodes."""
        if self._free_soon or self._idle or not self._able:
            return None
        target = min(self._able, key=lambda t: (self._priority(t), t.nodes))
        above = self._priority(target) + CLEARLY - 1
        return (target, above) if above < MAX_PRIORITY else None

    def _can_be_interrupted(self, target: Target) -> bool:
        view, part = target.view, target.part
        if part is None or part.begun is None or part.since is None:
            return False
        return (
            self._s.now - part.since >= max(LEAST_RUN_S, part.since - part.begun)
            and target.running
            and view is not None
            and view.cores > 0
            and not target.load.cores
            and not any(p.of_jobs and p.held for p in view.parts)
            and not target.makes_place
            and target.seconds >= WORTH_S
            and not part.idle
            and part.task_id in self._tasks
        )

    def _has_pack(self, task_id: int) -> bool:
        packs = (p for a in self._s.allocations for p in a.packs if not p.draining)
        return any(part.task_id == task_id for p in packs for part in p.parts)

    def _priority(self, target: Target) -> int:
        assert target.stream is not None
        return self._tasks[target.stream].priority

    def _is_soon(self, ground: Ground) -> bool:
        """Whether nodes without a pack can be used within a minute or so."""
        if ground.shape is None or ground.shape.in_window:
            return True
        wait = self._s.forecast.wait(ground.shape.nodes, ground.shape.walltime_s)
        return wait is None or wait.median_s <= SOON_S


def _idles(target: Target) -> bool:
    """Whether what it streams has nothing to do: another task can have its place at once."""
    return target.part is not None and target.part.idle and target.stream not in target.shares
