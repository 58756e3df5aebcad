"""What ePIC has published of its production at NERSC Perlmutter, and what follows from it by arithmetic.

Source: "Node Event Dispatcher", section "The problem, measured", in the documentation of the repository
BNLNPPS/swf-epicprod (2026), 14 days that end on 2026-08-23; event sizes are from its section "Design".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

P90: Final = NormalDist().inv_cdf(0.9)
"""Standard deviations between the median and the 90th percentile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The measured numbers. Hours, unless said otherwise."""

    days: float = 14.0
    allocations: int = 2_941
    """One-node Slurm jobs in that time."""
    mappings: int = 306_220
    """Jobs of PanDA that had a place in one of them, however they ended."""
    killed: int = 27_265
    """Jobs whose allocation ended while they ran, node failures among them: 9% of ``mappings``."""
    node_killed: int = 2_900
    """Of ``killed``, by a failing node."""
    killed_hours: float = 106_000.0
    """Core-hours of ``killed``."""
    finished_hours: float = 384_000.0
    """Core-hours of finished jobs; with ``killed_hours`` these are the 490 000."""
    wall: float = 4.05
    pilots: int = 80
    """Single-core pilots a node: ``srun -n 80`` in the job script."""
    job_median: float = 1.93
    """Of finished jobs, as is the next."""
    job_p90: float = 2.49
    event_mb: float = 0.46
    """Output of an event, and of a job."""
    job_mb: float = 552.0
    wait_median: float = 7.0 / 60.0
    """In the queue, as is the next."""
    wait_p90: float = 12.0

    @property
    def events_a_job(self) -> int:
        """Events of a job, by the size of their outputs."""
        return round(self.job_mb / self.event_mb)

    @property
    def job_sigma(self) -> float:
        """Of the logarithm of a finished job's time, were it normal."""
        return math.log(self.job_p90 / self.job_median) / P90

    @property
    def job_mean(self) -> float:
        """Of a finished job's time, were its logarithm normal."""
        return self.job_median * math.exp(self.job_sigma**2 / 2)

    @property
    def finished(self) -> float:
        """Jobs that finished: their core-hours by their mean."""
        return self.finished_hours / self.job_mean

    @property
    def killed_of_run(self) -> float:
        """Share of the killed in the killed and the finished."""
        return self.killed / (self.killed + self.finished)

    @property
    def killed_of_all(self) -> float:
        """Share of the killed in all jobs: the published 9%."""
        return self.killed / self.mappings

    @property
    def ended_otherwise(self) -> float:
        """Share of all jobs that neither finished nor were killed: they failed by themselves."""
        return 1.0 - (self.killed + self.finished) / self.mappings

    @property
    def hours_a_kill(self) -> float:
        """Core-hours that a killed job had run."""
        return self.killed_hours / self.killed

    @property
    def lost_share(self) -> float:
        """Of the core-hours of finished and killed jobs: the published 22%."""
        return self.killed_hours / (self.killed_hours + self.finished_hours)

    @property
    def useful_of_held(self) -> float:
        """Of the core-hours of all pilots, had each allocation lasted for its walltime."""
        return self.finished_hours / (self.allocations * self.pilots * self.wall)

    @property
    def jobs_a_pilot(self) -> float:
        """Finished and killed jobs for each pilot: under one, so none is followed by another."""
        return (self.killed + self.finished) / (self.allocations * self.pilots)


PUBLISHED: Final = Published()
