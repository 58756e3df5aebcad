"""The free parameters of the Perlmutter scenario, and its policies with jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from hpcpanda.domain.validation import require_between
from hpcpanda.simulate.perlmutter.jobs import HOUR, JobModel, lost_nodes
from hpcpanda.simulate.perlmutter.pilots import PilotRules, PilotRun, PilotShape, run_pilots
from hpcpanda.simulate.perlmutter.published import PUBLISHED
from hpcpanda.simulate.trace import Floats

FLOOR_S: Final = 2.3 * HOUR
"""A floor at which as many jobs would be killed as are, if second jobs were the cause."""

AS_TODAY: Final = PilotRules(
    name="as today",
    what="80 pilots a node, one job each (one wave); the wall kills what runs",
)
WITH_FLOOR: Final = PilotRules(
    name="second jobs",
    what="as today, but a pilot takes another job while its elapsed time is under 2.3 h",
    floor_s=FLOOR_S,
)
TRUTHFUL: Final = PilotRules(
    name="truthful limits",
    what="a pilot takes jobs as long as one is waiting whose time, known exactly, fits before the wall",
    truthful=True,
)
_JOBS_A_PILOT: Final = 4.0
"""More than any pilot takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is not published, or was chosen."""

    jobs: JobModel = field(default_factory=JobModel)
    startup_s: float = 60.0
    """From the begin of an allocation to the first event or job. Assumed, the same for all policies."""
    lost_node_share: float = 0.01
    """Of allocations. Published."""
    pilot_scale: float = 1.0
    """Share of the published allocations that the policies with jobs are simulated for."""
    range_s: float = 60.0
    """Ours: seconds that a range should take. Chosen: some 10 events of 0.46 MB."""
    timeout_s: float = 1200.0
    """Ours: longest that a range may take. Chosen: twice the costliest event, and short enough that an endless one is cut
    out of its range and tried three times within one allocation."""
    endless_s: float = 6.0 * HOUR
    """Ours: one event in the first half of the task costs so much, more than an allocation has; to show what becomes of
    it. 0: there is none."""

    def __post_init__(self) -> None:
        require_between("startup_s", self.startup_s, 0.0, PUBLISHED.wall * HOUR / 2)
        require_between("lost_node_share", self.lost_node_share, 0.0, 1.0)
        require_between("pilot_scale", self.pilot_scale, 0.001, 1.0)
        require_between("range_s", self.range_s, 0.001, 86_400.0)
        require_between("timeout_s", self.timeout_s, 0.1, 1e7)
        require_between("endless_s", self.endless_s, 0.0, 1e7)


def allocations_of(scale: float) -> int:
    """Allocations of a share of the published ones, at least two."""
    return max(2, round(PUBLISHED.allocations * scale))


def run_rules(
    rules: PilotRules, scenario: Scenario, seed: int, allocations: int
) -> tuple[PilotRun, Floats, int]:
    """Pilots over so many allocations, the jobs that waited for them, and how many lost their node; the same for all rules."""
    random = np.random.default_rng((seed, 1))
    shape = PilotShape(pilots=PUBLISHED.pilots, wall_s=PUBLISHED.wall * HOUR, startup_s=scenario.startup_s)
    lost = lost_nodes(allocations, scenario.lost_node_share, shape.wall_s, random)
    jobs = scenario.jobs.seconds(int(allocations * shape.pilots * _JOBS_A_PILOT) + 1000, random)
    return run_pilots(rules, shape, jobs, lost.tolist()), jobs, int(np.isfinite(lost).sum())
