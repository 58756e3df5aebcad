"""In which order tasks are served: points by component, added up.

A task's place is the sum of what its share, priority, waiting, deadline and boosts give, less what its failures and
its user's quota take. A weighted sum is how Slurm's multifactor priority works too, and it explains itself. The
weights are such that a share's deviation from its target outweighs priorities (1000 points are 1 % of deviation),
and waiting in the end outweighs everything, so that nothing starves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hpcpanda.brokerage.fairness import HOUR, Standing, Usage, standings
from hpcpanda.brokerage.shares import ShareTree, Weights
from hpcpanda.domain.why import Why

RESCUE = 1e6
"""Points an hour beyond the operator's patience."""
SMALL = 10
"""So many successes more than there were are taken for granted when a task's failures are judged: one failure of
the first event says little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A task with work that nobody holds."""

    task_id: int
    owner: str
    group: str | None = None
    priority: int = 0
    served: float
    """When work of it was last leased, or when it was submitted; Unix seconds."""
    deadline: float | None = None
    """Unix seconds."""
    needs_s: float = 0.0
    """How long the rest of it would take at its recent rate, seconds; 0 when that is not known."""
    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """A task's points by component."""

    share: float
    priority: float
    age: float
    deadline: float
    boost: float
    failures: float
    quota: float

    @property
    def total(self) -> float:
        """What the order goes by."""
        return self.share + self.priority + self.age + self.deadline + self.boost + self.failures + self.quota


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A task in its place, and why it is there."""

    task: Waiting
    share: str
    standing: Standing
    points: Points

    def why(self) -> Why:
        """The same for people and programs."""
        named = {name: getattr(self.points, name) for name in Points.__slots__}
        said = ", ".join(f"{name} {points:+.0f}" for name, points in named.items() if round(points))
        standing = self.standing
        return Why(
            code="order",
            sentence=f"It has {self.points.total:.0f} points in the order ({said or 'none of any kind'}); its share "
            f"{self.share} has had {standing.used / HOUR:.0f} core-hours of late where {standing.due / HOUR:.0f} were due, "
            f"and {standing.target:.1%} of all is its part now.",
            numbers=named
            | {"total": self.points.total, "target": standing.target}
            | {"used_core_s": standing.used, "due_core_s": standing.due},
        )


def rank(
    tasks: Iterable[Waiting],
    usage: Usage,
    tree: ShareTree,
    *,
    now: float,
    site: str | None = None,
    others: Iterable[str] = (),
) -> list[Ranked]:
    """The tasks, first to be served first; equal ones in order of submission.

    Args:
        tasks: those with work that waits.
        usage: what has been used.
        tree: the operator's plan.
        now: Unix seconds.
        site: where work is asked for, for boosts that hold there.
        others: shares that have work waiting besides those of ``tasks``.
    """
    placed = [(task, tree.leaf_of(owner=task.owner, group=task.group)) for task in tasks]
    standing = standings(tree, usage, {leaf for _, leaf in placed} | set(others), now=now)
    ranked = [
        Ranked(
            task=task,
            share=leaf,
            standing=standing[leaf],
            points=points(task, standing[leaf], usage, tree, now=now, site=site),
        )
        for task, leaf in placed
    ]
    return sorted(ranked, key=lambda one: (-one.points.total, one.task.task_id))


def points(
    task: Waiting, standing: Standing, usage: Usage, tree: ShareTree, *, now: float, site: str | None
) -> Points:
    """Points of one task by component."""
    weights = tree.plan.weights
    return Points(
        share=weights.share * standing.lag,
        priority=float(task.priority),
        age=_age(now - task.served, weights),
        deadline=_urgency(task, now, weights),
        boost=sum(
            b.points for b in tree.plan.boosts if b.applies(group=task.group, user=task.owner, site=site)
        ),
        failures=-weights.failures * task.failed / (task.failed + task.done + SMALL),
        quota=-_overuse(usage.users.get(task.owner, 0.0), tree.plan.quota.of(task.owner), weights),
    )


def _age(waited_s: float, weights: Weights) -> float:
    """Whole hours only: equal tasks submitted one after the other are served one after the other, not in turns."""
    hours = math.floor(max(0.0, waited_s) / HOUR)
    beyond = max(0.0, max(0.0, waited_s) / HOUR - weights.patience_h)
    return weights.age * hours + RESCUE * beyond


def _urgency(task: Waiting, now: float, weights: Weights) -> float:
    if task.deadline is None:
        return 0.0
    spare_h = (task.deadline - now - task.needs_s) / HOUR
    return weights.deadline * max(0.0, min(1.0, 1.0 - spare_h / weights.deadline_h))


def _overuse(core_seconds: float, quota: float | None, weights: Weights) -> float:
    if quota is None:
        return 0.0
    ratio = core_seconds / HOUR / quota
    return weights.quota * min(2.0, ratio) if ratio >= 1.0 else 0.0
