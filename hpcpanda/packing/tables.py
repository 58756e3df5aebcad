"""Jobs and nodes as columns: what placement works on, for a million jobs as for ten. Pure; NumPy only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hpcpanda.domain.errors import InvalidValue

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

ANYWHERE = -1
"""Of an affinity: no node has the job's inputs already. Of a placement: the job has no place."""


DIMENSIONS: Final = ("cores", "memory_mb", "gpus", "disk_mb")
"""What jobs take of a node and nodes have, in the order of demand and capacity matrices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobShape:
    """What one job asks for: a row of a :class:`JobTable`, where each field is explained."""

    cores: int = 1
    memory_mb: int = 0
    gpus: int = 0
    disk_mb: int = 0
    nodes: int = 1
    seconds: float
    priority: int = 0
    not_before: float = -inf
    deadline: float = inf
    affinity: int = ANYWHERE

    def __post_init__(self) -> None:
        """Refuse what no node could ever do."""
        for name in DIMENSIONS:
            if getattr(self, name) < 0:
                raise InvalidValue(name, "a job cannot ask for less than nothing")
        if self.nodes < 1:
            raise InvalidValue("nodes", "a job needs one node at least")
        if not 0 < self.seconds < inf:
            raise InvalidValue("seconds", "is to be more than 0 and finite")


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

    @classmethod
    def of(cls, shapes: Iterable[JobShape]) -> JobTable:
        """A table of jobs that are given one by one."""
        rows = list(shapes)

        def ints(name: str) -> Ints:
            return np.array([getattr(row, name) for row in rows], dtype=np.int64)

        def floats(name: str) -> Floats:
            return np.array([getattr(row, name) for row in rows], dtype=np.float64)

        return cls(
            cores=ints("cores"),
            memory_mb=ints("memory_mb"),
            gpus=ints("gpus"),
            disk_mb=ints("disk_mb"),
            nodes=ints("nodes"),
            seconds=floats("seconds"),
            priority=ints("priority"),
            not_before=floats("not_before"),
            deadline=floats("deadline"),
            affinity=ints("affinity"),
        )

    def row(self, index: int) -> JobShape:
        """One job."""
        return JobShape(**{f.name: getattr(self, f.name)[index].item() for f in fields(self)})

    def demand(self) -> Floats:
        """What each job takes of a node, jobs x dimensions."""
        return np.stack([getattr(self, name) for name in DIMENSIONS], axis=1).astype(np.float64)

    def check(self) -> None:
        """Raise InvalidValue, naming the column, where a row could be no job."""
        _same_length(self, len(self))
        for name in DIMENSIONS:
            if (getattr(self, name) < 0).any():
                raise InvalidValue(name, "a job cannot ask for less than nothing")
        if (self.nodes < 1).any():
            raise InvalidValue("nodes", "a job needs one node at least")
        if not (np.isfinite(self.seconds) & (self.seconds > 0)).all():
            raise InvalidValue("seconds", "is to be more than 0 and finite for every job")
        if np.isnan(self.not_before).any() or np.isnan(self.deadline).any():
            raise InvalidValue(
                "deadline", "deadline and not_before are to be numbers; infinity where there is none"
            )

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

    @classmethod
    def alike(
        cls,
        count: int,
        *,
        cores: int,
        memory_mb: int,
        gpus: int = 0,
        disk_mb: int = 0,
        free_from: float = 0.0,
        free_until: float,
    ) -> NodeTable:
        """So many nodes of one kind, free for the same time."""
        return cls(
            cores=np.full(count, cores, dtype=np.int64),
            memory_mb=np.full(count, memory_mb, dtype=np.int64),
            gpus=np.full(count, gpus, dtype=np.int64),
            disk_mb=np.full(count, disk_mb, dtype=np.int64),
            free_from=np.full(count, free_from),
            free_until=np.full(count, free_until),
        )

    def capacity(self) -> Floats:
        """What each node has, nodes x dimensions."""
        return np.stack([getattr(self, name) for name in DIMENSIONS], axis=1).astype(np.float64)

    def check(self) -> None:
        """Raise InvalidValue, naming the column, where a row could be no node."""
        _same_length(self, len(self))
        for name in DIMENSIONS:
            if (getattr(self, name) < 0).any():
                raise InvalidValue(name, "a node cannot have less than nothing")
        times = np.isfinite(self.free_from) & np.isfinite(self.free_until)
        if not (times & (self.free_until >= self.free_from)).all():
            raise InvalidValue(
                "free_until", "both times of a node are to be finite, free_until not before free_from"
            )

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

    def nodes_of(self, job: int) -> tuple[int, ...]:
        """All nodes of a job; none when it has no place."""
        first = int(self.node[job])
        return () if first == ANYWHERE else (first, *self.others.get(job, ()))

    @property
    def placed(self) -> NDArray[np.bool_]:
        """Whether each job has a place."""
        placed: NDArray[np.bool_] = self.node != ANYWHERE
        return placed


def _same_length(table: JobTable | NodeTable, length: int) -> None:
    for f in fields(table):
        if np.shape(getattr(table, f.name)) != (length,):
            raise InvalidValue(f.name, f"has not {length} rows, as cores has")
