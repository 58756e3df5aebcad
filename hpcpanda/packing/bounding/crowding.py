"""The time into which jobs are forced by their not-before times and deadlines. Pure; NumPy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hpcpanda.packing.tables import Floats, Ints, JobTable


def most_crowded(
    resources: Sequence[tuple[Ints, int]], jobs: JobTable, start: float, seconds: float
) -> tuple[Floats, float, float] | None:
    """The interval into which not-before times and deadlines force the most work, and each job's share of it.

    Of a job that may not begin before r nor end after d, at least min(s, d' - r') seconds fall into an interval, where r'
    is its earliest end and d' its latest start (energetic reasoning; Baptiste, Le Pape, Nuijten, Constraint-Based
    Scheduling, 2001, section 3.3.3).
    """
    end = start + seconds
    earliest = np.maximum(jobs.not_before, start) + jobs.seconds
    latest = np.minimum(jobs.deadline, end) - jobs.seconds
    if bool(np.all(jobs.not_before <= start)) and bool(np.all(jobs.deadline >= end)):
        return None
    best: tuple[float, Floats, float, float] | None = None
    for first, last in _intervals(jobs, start, end):
        forced = np.minimum(earliest - first, last - latest).clip(0, np.minimum(jobs.seconds, last - first))
        work = jobs.nodes * forced
        load = max(float(demand @ work) / capacity for demand, capacity in resources) / (last - first)
        if best is None or load > best[0]:
            best = load, forced, first, last
    return best[1:] if best else None


def _intervals(jobs: JobTable, start: float, end: float) -> Iterator[tuple[float, float]]:
    """Between some of the times that jobs give, spread evenly."""
    shares = np.linspace(0, 1, 6)
    firsts = {start, *np.quantile(jobs.not_before.clip(start, end), shares, method="nearest").tolist()}
    lasts = {end, *np.quantile(jobs.deadline.clip(start, end), shares, method="nearest").tolist()}
    return ((a, b) for a in sorted(firsts) for b in sorted(lasts) if a < b and (a, b) != (start, end))
