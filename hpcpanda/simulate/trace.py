"""The host's jobs of a trace, as columns, and what was wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from hpcpanda.domain.errors import InvalidValue

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

    def period(self, begin_s: float, end_s: float) -> HostTrace:
        """A part of the trace on the same machine, from ``begin_s`` until before ``end_s``, seconds from the first submission.

        Jobs submitted in it; and, where real starts are known, those that waited when it began, as submitted then, and the
        rest of those that ran, so that the machine does not begin empty.

        Raises:
            InvalidValue: it has no job.
        """
        end = self.start + self.run
        waited = (self.submit < begin_s) & (self.start >= begin_s)
        ran = (self.start < begin_s) & (end > begin_s)
        chosen = np.flatnonzero((self.submit < end_s) & ((self.submit >= begin_s) | waited | ran))
        if not len(chosen):
            days = f"day {begin_s / 86_400:.6g} to day {end_s / 86_400:.6g}"
            raise InvalidValue(self.source, f"has no job from {days}; it has {self.days:.1f} days")
        chosen = chosen[np.lexsort((~ran[chosen], np.maximum(self.submit[chosen], begin_s)))]
        shift = max(begin_s, float(self.submit[chosen[0]]))
        gone = np.where(ran, begin_s - self.start, 0.0)[chosen]
        return replace(
            self,
            submit=np.maximum(self.submit[chosen], begin_s) - shift,
            nodes=self.nodes[chosen],
            run=self.run[chosen] - gone,
            requested=self.requested[chosen] - gone,
            start=self.start[chosen] + gone - shift,
            epoch=self.epoch + shift if self.epoch else 0.0,
        )

    @property
    def days(self) -> float:
        """From the first submission to the last, days."""
        return float(self.submit[-1]) / 86_400 if len(self) else 0.0

    def year(self, year: int) -> HostTrace:
        """The period of a calendar year (UTC).

        Raises:
            InvalidValue: the trace does not tell its dates, or has no job in that year.
        """
        if not self.epoch:
            raise InvalidValue(self.source, "tells no dates; choose days in the place of a year")
        first, last = (
            datetime.fromtimestamp(self.epoch + s, tz=UTC).year for s in (0.0, float(self.submit[-1]))
        )
        if not first <= year <= last:
            raise InvalidValue(
                self.source, f"has no job of {year}; its jobs were submitted in {first}..{last}"
            )
        begin, end = (datetime(y, 1, 1, tzinfo=UTC).timestamp() - self.epoch for y in (year, year + 1))
        return self.period(begin, end)
