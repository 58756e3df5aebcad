"""The host's jobs of a trace, as columns, and what was wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One kind of flaw of a trace, and what was done about it."""

    kind: str
    """A short name, such as ``zero-run-time``."""
    count: int
    """Jobs, or lines, that have it."""
    first_line: int
    """Line number of the first one, from 1."""
    remedy: str
    """What was done, in a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTrace:
    """Jobs of the host in order of submission; row i of each column is job i. Times are seconds from the first submission."""

    submit: Floats
    nodes: Ints
    run: Floats
    """How long it ran, more than 0."""
    requested: Floats
    """Walltime asked for; at least ``run``."""
    start: Floats
    """When it started in reality; NaN where the trace does not tell."""
    machine_nodes: int
    """Nodes of the machine: as told, or the most that ran at once."""
    epoch: float
    """Unix seconds of the first submission; 0 when the trace does not tell."""
    source: str
    """Where it was read from, and its format."""
    flaws: tuple[Flaw, ...] = ()

    def __len__(self) -> int:
        return len(self.submit)
