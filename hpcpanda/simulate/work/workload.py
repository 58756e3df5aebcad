"""The work that a simulated machine is given, and what its cutting short costs: closed forms, no event is drawn singly.

Ranges of events follow one another on every core, so an interruption hits them as a renewal process is hit: the range
in flight is a length-biased one, at a uniform place (D. R. Cox, Renewal Theory, 1962, section 5.4). Costs of events and
run times of jobs are lognormal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache, cached_property
from statistics import NormalDist

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.validation import require_between
from hpcpanda.simulate.trace import Floats

_P90 = NormalDist().inv_cdf(0.9)
_GRID = 1000
"""Quantiles that a distribution of range costs is summed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWork:
    """Events of one task; there are always more of them."""

    event_seconds: float = 5.0
    """Mean cost of an event, core-seconds."""
    spread: float = 0.5
    """Standard deviation of the logarithm of the cost."""
    target_seconds: float = 10.0
    """Time that a range should take."""

    def __post_init__(self) -> None:
        require_between("events.event_seconds", self.event_seconds, 1e-6, 1e6)
        require_between("events.spread", self.spread, 0.0, 3.0)
        require_between("events.target_seconds", self.target_seconds, 0.001, 86_400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWork:
    """Jobs of one task, each on some cores of one node; there are always more of them.

    The defaults are the jobs of ePIC's production at NERSC Perlmutter, August and September 2026: run times of 1.93 h in
    the median and 2.49 h at the ninth decile.
    """

    cores: int = 8
    memory_mb: int = 2000
    median_s: float = 6948.0
    p90_s: float = 8964.0
    limit_s: float = 14_400.0
    """Walltime that its user asks for: a job that runs longer is ended and has failed."""

    def __post_init__(self) -> None:
        require_between("jobs.cores", self.cores, 1, 4096)
        require_between("jobs.memory_mb", self.memory_mb, 16, 64_000_000)
        require_between("jobs.median_s", self.median_s, 1.0, 1e7)
        require_between("jobs.p90_s", self.p90_s, self.median_s, 1e7)
        require_between("jobs.limit_s", self.limit_s, self.median_s, 1e7)

    @property
    def request(self) -> JobRequest:
        """What each job asks for."""
        return JobRequest(cores=self.cores, memory_mb=self.memory_mb, walltime_s=self.limit_s)

    def run_times(self, rng: np.random.Generator, count: int) -> Floats:
        """Seconds that so many jobs would run if nothing ended them."""
        sigma = math.log(self.p90_s / self.median_s) / _P90
        drawn: Floats = rng.lognormal(math.log(self.median_s), sigma, count)
        return drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What there is to do, and what starting to do it costs."""

    events: EventWork = field(default_factory=EventWork)
    jobs: JobWork = field(default_factory=JobWork)
    job_share: float = 0.0
    """Share of the node-time held that jobs get where a policy has events too, 0..1."""
    startup_s: float = 30.0
    """From the begin of a pack, or of a pilot, to its first event or job, all cores idle."""

    def __post_init__(self) -> None:
        require_between("job_share", self.job_share, 0.0, 1.0)
        require_between("startup_s", self.startup_s, 0.0, 1e5)
        if self.job_share == 1.0:
            raise InvalidValue("job_share", "leaves nothing to events; take the policy without events")


@dataclass(frozen=True, slots=True)
class Cut:
    """What the end of its work does to one core, in seconds of it, relative to the instant at which the end is told."""

    kept: float
    """Added to the work that was done until then; negative where work in flight is thrown away."""
    lost: float
    """Thrown away, both done before and after that instant."""
    after: float
    """How long the core is held after it."""


class RangeCosts:
    """Cost of ranges of a task's events, and what is lost of them when work is cut short."""

    def __init__(self, work: EventWork) -> None:
        self.events = max(1, round(work.target_seconds / work.event_seconds))
        """In a range."""
        self.mean_s = self.events * work.event_seconds
        variance = math.expm1(work.spread**2) / self.events
        sigma = math.sqrt(math.log1p(variance))  # of a lognormal with the sum's moments (Fenton, 1960)
        normal = NormalDist(-(sigma**2) / 2, max(sigma, 1e-9))
        levels = (np.arange(_GRID) + 0.5) / _GRID
        shape = np.exp([normal.inv_cdf(float(p)) for p in levels])
        self._costs: Floats = self.mean_s * shape / shape.mean()

    def draw(self, rng: np.random.Generator, count: int) -> Floats:
        """Core-seconds of so many ranges."""
        drawn: Floats = self._costs[rng.integers(0, _GRID, count)]
        return drawn

    @cached_property
    def _age_s(self) -> float:
        """Mean of what is done of the range in flight at any instant."""
        return float((self._costs**2).mean() / (2 * self.mean_s))

    @cache  # noqa: B019 - few of these live, each as long as its simulation
    def killed(self, sync_s: float) -> Cut:
        """Without a warning: the range in flight is lost, and what was finished since the last journal record."""
        lost = self._age_s + sync_s / 2
        return Cut(kept=-lost, lost=lost, after=0.0)

    @cache  # noqa: B019
    def preempted(self, grace_s: float) -> Cut:
        """With a warning: no range is started, those in flight are finished if the grace time is enough."""
        costs, mean = self._costs, self.mean_s
        over = np.maximum(
            0.0, costs - grace_s
        )  # where in the range the instant is, if it is not finished in time
        done_before = float((over**2).mean() / (2 * mean))
        lost = done_before + grace_s * float(over.mean()) / mean
        within = np.minimum(costs, grace_s)
        finished_after = float((within**2).mean() / (2 * mean))
        return Cut(kept=finished_after - done_before, lost=lost, after=min(grace_s, float(costs[-1])))

    @cache  # noqa: B019
    def drained(self, grace_s: float) -> Cut:
        """At a deadline known from the start: no range is begun that is expected to end later.

        The last one of a core is begun when between one and two mean costs are left, anywhere between. Most end before
        the deadline, some after it, few not even at the end of the grace time.
        """
        left = self.mean_s * (1 + (np.arange(100) + 0.5) / 100)
        ends = np.minimum(self._costs[None, :], left[:, None] + grace_s)
        lost = np.where(self._costs[None, :] > left[:, None] + grace_s, ends, 0.0).mean()
        late = np.maximum(0.0, self._costs[None, :] - left[:, None])
        kept = ends.mean() - lost - left.mean()
        return Cut(kept=float(kept), lost=float(lost), after=min(grace_s, float(late.max())))
