"""What was learnt of a task: what an event costs, how long jobs take and how much memory, and how far promises held. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np

from hpcpanda.domain.validation import require_between
from hpcpanda.packing.tables import Floats
from hpcpanda.prediction.observations import Observations, scouts
from hpcpanda.prediction.sketch import Sketch

GUESS_EVENTS: Final = 3.0
"""The user's guess of the cost of an event counts as so many events."""
_REFRESH: Final = 1.02
"""A promise is worked out anew when there are more samples by this factor."""


class JobEnd(StrEnum):
    """How the run of a job came to its end."""

    ENDED = "ended"
    """By itself, and it succeeded."""
    LIMIT = "limit"
    """It was killed at a limit: it would have needed more."""
    FAILED = "failed"
    """By itself, before it was done: a whole one may need more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskWords:
    """What the user says of a task; each may be unsaid."""

    walltime_s: float | None = None
    """No job runs for longer."""
    memory_mb: float | None = None
    """No job, or worker, uses more; MiB."""
    event_seconds: float | None = None
    """The user's guess, core-seconds."""

    def __post_init__(self) -> None:
        for name in ("walltime_s", "memory_mb", "event_seconds"):
            value: float | None = getattr(self, name)
            if value is not None:
                require_between(name, value, 1e-9, 1e10)


@dataclass(slots=True, kw_only=True)
class Calibration:
    """Promises of a walltime, each made before the job it is held against was seen."""

    promised: int = 0
    """Jobs for which there was a promise made of samples."""
    exceeded: int = 0
    """Those that took longer than promised: overruns."""
    promised_s: float = 0.0
    used_s: float = 0.0
    """Seconds that they took; of those killed at the limit, the limit."""

    def note(self, promise: float, seconds: Floats, longer: int) -> None:
        """Hold a promise against jobs; so many of them, not in ``seconds`` alone, took longer."""
        self.promised += len(seconds)
        self.exceeded += longer
        self.promised_s += promise * len(seconds)
        self.used_s += float(seconds.sum())

    def add_change(self, before: Calibration, after: Calibration) -> None:
        """Count what has come to another between two times."""
        self.promised += after.promised - before.promised
        self.exceeded += after.exceeded - before.exceeded
        self.promised_s += after.promised_s - before.promised_s
        self.used_s += after.used_s - before.used_s

    @property
    def exceeded_share(self) -> float | None:
        """Seen share of overruns; None before the first promise."""
        return self.exceeded / self.promised if self.promised else None

    @property
    def used_share(self) -> float | None:
        """Time used over time promised: the less, the larger the under-runs. None before the first promise."""
        return self.used_s / self.promised_s if self.promised_s > 0 else None


@dataclass(slots=True, kw_only=True)
class TaskKnowledge:
    """What was learnt of one task. ``scale`` in methods: the weight of what is seen now, see ``decay``."""

    words: TaskWords = field(default_factory=TaskWords)
    last_seen: float = -math.inf
    """Unix seconds."""
    events: Sketch = field(default_factory=Sketch)
    """Core-seconds an event; of events that ran together in a range, their mean."""
    core_seconds: float = 0.0
    """Weighted sum over all events."""
    events_seen: int = 0
    walltimes: Observations = field(default_factory=Observations)
    """Seconds of jobs."""
    memory: Observations = field(default_factory=Observations)
    """MiB of jobs."""
    ends: dict[JobEnd, int] = field(default_factory=dict)
    """Jobs seen, by how they ended."""
    calibration: Calibration = field(default_factory=Calibration)
    _promise: float | None = field(default=None, compare=False, repr=False)
    _promise_due: float = field(default=0.0, compare=False, repr=False)
    """Samples from which on the promise is made anew."""

    def saw_events(self, counts: Floats, core_seconds: Floats, weight: float) -> None:
        """Count ranges of events; see :meth:`Knowledge.saw_events`."""
        self.events.add_all(core_seconds / counts, counts * weight)
        self.core_seconds += float(core_seconds.sum()) * weight
        self.events_seen += int(counts.sum())

    def saw_jobs(self, seconds: Floats, end: JobEnd, weight: float, risk: float) -> None:
        """Count jobs that ended alike, after holding them against the promise made before."""
        if end is not JobEnd.FAILED and (promise := self._promised(risk, weight)) is not None:
            longer = len(seconds) if end is JobEnd.LIMIT else int((seconds > promise).sum())
            self.calibration.note(promise, seconds, longer)
        seen = self.walltimes.ended if end is JobEnd.ENDED else self.walltimes.censored
        seen.add_all(seconds, np.full(len(seconds), weight))
        self.ends[end] = self.ends.get(end, 0) + len(seconds)

    def saw_memory(self, memory_mb: float, end: JobEnd, weight: float) -> None:
        """Count the memory of a job."""
        (self.memory.ended if end is JobEnd.ENDED else self.memory.censored).add(memory_mb, weight)

    def scale(self, factor: float, least: float) -> None:
        """Multiply all weights."""
        self.events.scale(factor, least)
        self.core_seconds = self.core_seconds * factor if self.events else 0.0
        self.walltimes.scale(factor, least)
        self.memory.scale(factor, least)

    def event_seconds(self, scale: float) -> float | None:
        """Core-seconds an event: the mean of those seen and the user's guess; None when nothing is known."""
        guess = self.words.event_seconds
        worth = 0.0 if guess is None else GUESS_EVENTS
        events = self.events.total / scale
        if events + worth <= 0:
            return None
        return (self.core_seconds / scale + (guess or 0.0) * worth) / (events + worth)

    def job_seconds(self, risk: float, scale: float) -> float | None:
        """Walltime that a job exceeds with no more than this probability, at most the user's limit.

        The limit itself until enough scouts have been seen; None when there is neither.
        """
        return _within(self.walltimes.bound(risk, scale), self.words.walltime_s)

    def memory_mb(self, risk: float, scale: float) -> float | None:
        """The same of memory, MiB."""
        return _within(self.memory.bound(risk, scale), self.words.memory_mb)

    def scouts_missing(self, risk: float, scale: float) -> int:
        """Jobs that have to be seen before more than the user's limit is known."""
        return max(0, math.ceil(scouts(risk) - self.walltimes.samples(scale) - 0.5))

    def _promised(self, risk: float, scale: float) -> float | None:
        """The promise of a walltime, where it is more than the user's own limit; made anew now and then."""
        samples = self.walltimes.samples(scale)
        if samples >= self._promise_due or samples * _REFRESH**2 < self._promise_due:
            self._promise = self.walltimes.bound(risk, scale)
            self._promise_due = samples * _REFRESH
        limit = self.words.walltime_s
        if self._promise is None or (limit is not None and self._promise >= limit):
            return None
        return self._promise


def _within(bound: float | None, limit: float | None) -> float | None:
    if bound is None or limit is None:
        return limit if bound is None else bound
    return min(bound, limit)
