"""The jobs of the Perlmutter scenario, and the events that they consist of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcpanda.domain.validation import require_between
from hpcpanda.simulate.perlmutter.published import PUBLISHED
from hpcpanda.simulate.trace import Floats

HOUR: Final = 3600.0

Costs = NDArray[np.float32]
"""Core-seconds of single events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobModel:
    """Ordinary jobs as published, and slow ones that the wall hides.

    A job's time is lognormal; a slow job has costlier events all over, as one of another physics sample has. The cost
    of the events of a job is lognormal around the job's mean.
    """

    median_s: float = PUBLISHED.job_median * HOUR
    sigma: float = PUBLISHED.job_sigma
    """Of the logarithm of a job's time."""
    slow_share: float = 0.121
    """Share of slow jobs. Fitted: so that as many of the jobs that run are killed as published."""
    slow_factor: float = 3.0
    """Costs of a slow job to those of an ordinary one. Assumed: the wall hides the truth; nearly all must exceed it."""
    events: int = PUBLISHED.events_a_job
    """Of a job."""
    event_sigma: float = 0.8
    """Of the logarithm of an event's cost inside a job. Assumed: nothing is published."""

    def __post_init__(self) -> None:
        require_between("jobs.median_s", self.median_s, 1e-3, 1e7)
        require_between("jobs.sigma", self.sigma, 0.0, 3.0)
        require_between("jobs.slow_share", self.slow_share, 0.0, 1.0)
        require_between("jobs.slow_factor", self.slow_factor, 1.0, 1000.0)
        require_between("jobs.events", self.events, 1, 1_000_000)
        require_between("jobs.event_sigma", self.event_sigma, 0.0, 3.0)

    @property
    def mean_s(self) -> float:
        """Mean time of a job, slow ones among them."""
        ordinary = self.median_s * math.exp(self.sigma**2 / 2)
        return ordinary * (1.0 + self.slow_share * (self.slow_factor - 1.0))

    def seconds(self, count: int, random: np.random.Generator) -> Floats:
        """Times of so many jobs, in the order in which they wait."""
        times = self.median_s * np.exp(self.sigma * random.standard_normal(count))
        times[random.random(count) < self.slow_share] *= self.slow_factor
        return times

    def costs(self, seconds: Floats, random: np.random.Generator) -> Costs:
        """Costs of the events of jobs, one row a job; each row's sum is the job's time."""
        spread = np.exp(
            self.event_sigma * random.standard_normal((len(seconds), self.events), dtype=np.float32)
        )
        scale = seconds / spread.sum(axis=1, dtype=np.float64)
        costs: Costs = spread * scale.astype(np.float32)[:, None]
        return costs


def lost_nodes(allocations: int, share: float, wall_s: float, random: np.random.Generator) -> Floats:
    """When each allocation loses its node, seconds after its begin; infinity for those that do not.

    As many as the share says, to the nearest and at least one: a small simulation has neither none nor many by chance.
    """
    lost = np.full(allocations, np.inf)
    count = min(allocations, max(1, round(allocations * share))) if share else 0
    lost[random.permutation(allocations)[:count]] = random.uniform(0.0, wall_s, count)
    return lost
