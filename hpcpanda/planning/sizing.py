"""How many nodes the jobs at hand need together: pools that ask for different things share nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.site import NodeSettings, Site
from hpcpanda.packing.placement import nodes_needed
from hpcpanda.packing.tables import JobShape, JobTable, NodeTable
from hpcpanda.planning.packs import Pool

_MOST_PLACED: Final = 500
"""Of more jobs a sample is placed, so that a plan stays cheap; nodes grow with jobs."""

_Kind = tuple[JobRequest, float, int]
"""What jobs of a pool ask for, how long one runs, and how many there are."""


def nodes_together(pools: Sequence[Pool], site: Site, expected: Callable[[Pool], float]) -> float:
    """Nodes on which the jobs of several pools, each on one node, keep busy for the look-ahead, placed side by side.

    A job that outlasts the look-ahead counts for as long as that: the others must not wait for its end. ``expected`` gives
    the seconds that a job of a pool is expected to run.
    """
    horizon = site.allocation.lookahead_s
    kinds = tuple((p.job, min(expected(p), horizon), p.left * p.job.clones) for p in pools if p.left)
    total = sum(count for _, _, count in kinds)
    if not total:
        return 0.0
    scale = max(1.0, total / _MOST_PLACED)
    sample = tuple((job, seconds, math.ceil(count / scale)) for job, seconds, count in kinds)
    return _placed(sample, site.nodes, horizon) * scale


@lru_cache(maxsize=256)
def _placed(kinds: tuple[_Kind, ...], node: NodeSettings, horizon: float) -> int:
    shapes = (
        JobShape(cores=job.cores, memory_mb=job.memory_mb, gpus=job.gpus, seconds=seconds)
        for job, seconds, count in kinds
        for _ in range(count)
    )
    kind = NodeTable.alike(1, cores=node.cores, memory_mb=node.memory_mb, gpus=node.gpus, free_until=horizon)
    count, _ = nodes_needed(JobTable.of(shapes), kind, horizon, effort=0)
    return count
