"""Jobs and nodes as columns: what placement works on, for a million jobs as for ten. Pure; NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ANYWHERE = -1
"""Of an affinity: no node has the job's inputs already. Of a placement: the job has no place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTable:
    """What jobs ask for; row i of each column is job i.

    A job of one node takes some of it; a job of several takes each whole (``cores``, ``memory_mb`` ... are then what
    each of its nodes must have).
    """

    cores: Ints
    memory_mb: Ints
    """MiB on each node."""
    gpus: Ints
    disk_mb: Ints
    """MiB of node-local scratch."""
    nodes: Ints
    """1, or whole nodes of an MPI job."""
    seconds: Floats
    """Time for which its place is kept: the predicted walltime at the stated risk."""
    priority: Ints
    """Higher is served first."""
    not_before: Floats
    """Seconds on the same clock as the nodes' times."""
    deadline: Floats
    """To be finished by; infinity for none."""
    affinity: Ints
    """Node that has its inputs cached, or ``ANYWHERE``."""

    def __len__(self) -> int:
        return len(self.cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTable:
    """Whole nodes for a time; row i of each column is node i. Kinds of nodes differ in their columns alone."""

    cores: Ints
    memory_mb: Ints
    gpus: Ints
    disk_mb: Ints
    free_from: Floats
    """Seconds; some are freed later."""
    free_until: Floats
    """Everything on it has ended by then."""

    def __len__(self) -> int:
        return len(self.cores)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which job runs where and when: row i of each column is job i."""

    node: Ints
    """Its node, the first of several, or ``ANYWHERE`` where it has no place."""
    start: Floats
    """Seconds; NaN where it has no place."""
    others: dict[int, tuple[int, ...]]
    """Job of several nodes -> its nodes besides the first."""

    @property
    def placed(self) -> NDArray[np.bool_]:
        """Whether each job has a place."""
        placed: NDArray[np.bool_] = self.node != ANYWHERE
        return placed
