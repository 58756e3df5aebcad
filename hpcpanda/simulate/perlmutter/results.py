"""What the Perlmutter preset finds: plain values that go to JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.simulate.perlmutter.jobs import Costs

_CURVE: tuple[float, ...] = (*(i / 100 for i in range(1, 100)), 0.995, 0.999, 0.9995, 0.9999)
"""Shares whose quantiles a distribution keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreHours:
    """Where the core-hours of allocations went; each is in exactly one of them."""

    useful: float
    """Work that was finished and kept."""
    lost_wall: float
    """Work cut off at the end of an allocation, or by its drain."""
    lost_node: float
    """Work cut off by a failing node, and what was finished and not yet on the disk."""
    lost_timeout: float
    """Events that take longer than a range may."""
    startup: float
    idle: float
    """Cores without work while the allocation was held."""

    @property
    def lost(self) -> float:
        """Begun and thrown away."""
        return self.lost_wall + self.lost_node + self.lost_timeout

    @property
    def held(self) -> float:
        """All of them."""
        return self.useful + self.lost + self.startup + self.idle

    @property
    def lost_of_work(self) -> float:
        """Share of the lost in all work done, idle cores left out: what is published as 22%."""
        return self.lost / (self.useful + self.lost) if self.useful + self.lost else 0.0

    @property
    def useful_of_held(self) -> float:
        """Share of the useful in all core-hours of the allocations."""
        return self.useful / self.held if self.held else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Costs of events, core-seconds."""

    events: int
    mean_s: float
    median_s: float
    p99_s: float
    curve: tuple[tuple[float, float], ...]
    """Share of events, and the cost that this share is not above."""

    @classmethod
    def of(cls, costs: Costs) -> Distribution:
        """That of at least one event."""
        quantiles = np.quantile(costs, (0.5, 0.99, *_CURVE))
        return cls(
            events=len(costs),
            mean_s=float(costs.mean(dtype=np.float64)),
            median_s=float(quantiles[0]),
            p99_s=float(quantiles[1]),
            curve=tuple(zip(_CURVE, map(float, quantiles[2:]), strict=True)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bias:
    """Whether the finished events are a fair sample of the submitted ones."""

    submitted: Distribution
    finished: Distribution
    distance: float
    """Largest difference of the two distribution functions (Kolmogorov and Smirnov), 0..1."""
    threshold: float
    """Distance that two independent samples of these sizes exceed in 1% of cases (N. Smirnov, Ann. Math. Statist. 19,
    279, 1948). Events of one job are alike, so it is a hint, no test."""

    @classmethod
    def between(cls, submitted: Costs, finished: Costs) -> Bias:
        """Compare samples of at least one event each."""
        n, m = len(submitted), len(finished)
        return cls(
            submitted=Distribution.of(submitted),
            finished=Distribution.of(finished),
            distance=distance(submitted, finished),
            threshold=math.sqrt(-math.log(0.01 / 2) / 2) * math.sqrt((n + m) / (n * m)),
        )


def distance(a: Costs, b: Costs) -> float:
    """The two-sample Kolmogorov-Smirnov statistic."""
    a, b = np.sort(a), np.sort(b)
    both = np.concatenate((a, b))
    below_a = np.searchsorted(a, both, side="right") / len(a)
    below_b = np.searchsorted(b, both, side="right") / len(b)
    return float(np.abs(below_a - below_b).max())


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """How one policy fared."""

    policy: str
    what: str
    """The policy in a sentence."""
    allocations: float
    """The last one of a task counts as the part of it that was held."""
    lost_nodes: int
    """Allocations that lost their node."""
    core_hours: CoreHours
    jobs_finished: int
    jobs_killed: int
    """At the wall or by a failing node."""
    jobs_never: int
    """Set aside, because no allocation is long enough."""
    events_finished: int
    events_a_day: float
    """At the published number of allocations a day."""
    useful_a_day: float
    """Useful core-hours at the same number; fairer than events where slow ones are left out."""
    half_idle: float
    """Share of allocations in which half of the cores, or more, were without work while the others worked on."""
    bias: Bias
    failed: tuple[FailedEvent, ...] = ()
    """Events set aside, each with the reason."""

    @property
    def killed_of_run(self) -> float:
        """Share of the killed in the jobs that ran."""
        ran = self.jobs_finished + self.jobs_killed
        return self.jobs_killed / ran if ran else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Streaming:
    """More about ours: what the ledger and the allocations tell."""

    tasks_events: int
    """Events of the task."""
    leases: int
    given_back: int
    """Events that came back unprocessed, cut off or unsaved, and were leased again."""
    midway: Bias
    """Of the events leased by the time when half of them were done, against those done: the slow are put off, and that
    shows only in what is still open."""
    core_minutes_a_lost_node: float
    """Work thrown away with a node, mean over the lost nodes and for each core; 0 where no node was lost."""
    longest_finished_s: float
    """Cost of the costliest event that was finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A published number beside the simulated one of the policy "as today"."""

    what: str
    published: float
    simulated: float
    fitted: bool
    """A parameter was chosen so that they agree; otherwise the simulation predicts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A reading of what is published, and whether the numbers can be met."""

    what: str
    killed_of_run: float
    hours_a_kill: float
    lost_share: float
    jobs_a_pilot: float
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PerlmutterResult:
    """All policies over the scenario."""

    seed: int
    scale: float
    """Share of the published allocations that ours was given work for."""
    policies: tuple[PolicyResult, ...]
    streaming: Streaming
    checks: tuple[Check, ...]
    readings: tuple[Reading, ...]
    assumptions: tuple[str, ...]
    """Free parameters: what was fitted to what, and what was assumed."""
