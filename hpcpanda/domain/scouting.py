"""Scouts: the first jobs of a task are run alone, and what they have used decides what the rest asks for. Pure.

Nothing is known of the jobs to come but what the scouts have shown, so what is asked for is above all that was seen:
the largest, and ``MARGIN`` of it more, and where the scouts differ much, ``SPREADS`` standard deviations above their mean
(by Chebyshev's inequality at most 1 job in ``SPREADS``² is beyond that, whatever the distribution). What the user states is a
limit: it is never exceeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.splitting import Caps, JobSplit, Unit
from hpcpanda.domain.validation import MAX_EVENTS, require_between

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}

DEFAULT_SCOUTS = 10
"""Scouts of a task that cannot be cut before something of it is known."""
MAX_SCOUTS = 1000
SCOUT_EVENTS = 10
"""Events of a scout where nothing says more."""
ENOUGH = Fraction(4, 5)
"""Part of the scouts that has to be back."""
MARGIN = 0.5
"""Of the largest that was seen, on top of it."""
SPREADS = 6.0
LEAST_WALLTIME_S = 60.0
"""Added to the walltime, for what comes and goes: a slow file system, a busy node."""
LEAST_MEMORY_MB = 64
"""Added to the memory."""
FILL = 0.8
"""A job is cut to fill this part of what it may take, by the costliest event seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMeasure:
    """What a finished job has used."""

    __pydantic_config__: ClassVar = _STRICT

    job: int
    wall_s: float
    max_rss_mb: float = 0.0
    """Highest resident memory of all its processes that was seen, MiB; 0: too little to be told."""
    disk_mb: float = 0.0
    """Most that it kept in its work folder, MiB, as far as it was seen."""
    output_mb: float = 0.0
    """What it has left, MiB."""

    def __post_init__(self) -> None:
        require_between("measured.job", self.job, 0, MAX_EVENTS - 1)
        require_between("measured.wall_s", self.wall_s, 0.0, 1e8)
        for name in ("max_rss_mb", "disk_mb", "output_mb"):
            require_between(f"measured.{name}", getattr(self, name), 0.0, 1e12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What an event costs, as the costliest scout has shown; None: not known."""

    wall_s: float | None = None
    memory_mb: float | None = None
    disk_mb: float | None = None
    output_mb: float | None = None


def has_to_be_learnt(split: JobSplit | None, *, guessed: bool) -> tuple[str, ...]:
    """The limits of a split for which a task has to be measured first.

    Args:
        split: of the task.
        guessed: its user says what an event takes.
    """
    if split is None:
        return ()
    return tuple(name for name in split.limits if not (guessed and name == "max_walltime_s"))


def enough_back(*, scouts: int, back: int) -> bool:
    """Whether the rest need wait no longer."""
    return back >= math.ceil(ENOUGH * scouts)


def costs(measures: Iterable[JobMeasure], events: Mapping[int, int]) -> Costs:
    """What an event costs.

    Args:
        measures: of scouts.
        events: of each job.
    """
    seen = [(m, events[m.job]) for m in measures if events.get(m.job)]

    def most(of: Callable[[JobMeasure], float]) -> float | None:
        return max((of(m) / n for m, n in seen), default=0.0) or None

    return Costs(
        wall_s=most(lambda m: m.wall_s),
        memory_mb=most(lambda m: m.max_rss_mb),
        disk_mb=most(lambda m: m.disk_mb),
        output_mb=most(lambda m: m.output_mb),
    )


def guessed_costs(event_seconds: float | None, request: JobRequest) -> Costs:
    """What an event costs by the word of its user, in core-seconds, for a job on one node."""
    if event_seconds is None or request.nodes > 1:
        return Costs()
    return Costs(wall_s=event_seconds / request.cores)


def caps_of(split: JobSplit, known: Costs) -> Caps:
    """What a job may hold so that it keeps all limits, as far as costs are known; one event at least."""
    limits = (
        (split.max_walltime_s, known.wall_s),
        (split.max_memory_mb, known.memory_mb),
        (split.max_disk_mb, known.disk_mb),
        (split.max_output_mb, known.output_mb),
    )
    events = [max(1, int(min(FILL * most / each, MAX_EVENTS))) for most, each in limits if most and each]
    if split.events_per_job is not None:
        events.append(split.events_per_job)
    return Caps(files=split.files_per_job, events=min(events, default=None), bytes=split.max_bytes)


def scout_caps(split: JobSplit, unit: Unit) -> Caps:
    """What a scout may hold of a task that cannot be cut yet: a file, or a few events."""
    if unit is Unit.FILES:
        return Caps(files=1)
    return Caps(events=min(split.events_per_job or SCOUT_EVENTS, SCOUT_EVENTS))


def require_split(
    split: JobSplit, stated: JobRequest, *, of_files: bool, guessed: bool, scouts: int | None
) -> None:
    """A task can be cut as its user says.

    Args:
        split: of the task.
        stated: what each job asks for.
        of_files: what is cut are files.
        guessed: the user says what an event takes.
        scouts: as the user says.

    Raises:
        InvalidValue: it cannot.
    """
    if not of_files:
        for name in ("files_per_job", "max_bytes"):
            if getattr(split, name) is not None:
                raise InvalidValue(f"split.{name}", "is for tasks with input files; give 'inputs'")
    for name, most in (
        ("walltime_s", stated.walltime_s),
        ("memory_mb", stated.memory_mb),
        ("disk_mb", stated.disk_mb),
    ):
        limit = getattr(split, f"max_{name}")
        if limit is not None and limit > most:
            raise InvalidValue(
                f"split.max_{name}",
                f"{limit:g} is more than a job is given, job.{name} = {most:g}; raise that",
            )
    learnt = has_to_be_learnt(split, guessed=guessed)
    if learnt and scouts == 0:
        said = (
            ", or say in resources.event_seconds what an event takes" if learnt == ("max_walltime_s",) else ""
        )
        raise InvalidValue(
            "scouts", f"split.{learnt[0]} needs jobs that find out what an event costs; allow some{said}"
        )


def request_of(
    stated: JobRequest,
    measures: Sequence[JobMeasure],
    *,
    growth: Mapping[int, float] | None = None,
    split: JobSplit | None = None,
) -> JobRequest:
    """What the jobs that are left ask for; at most what the user has stated.

    Memory grows with the events of a job only where the split limits it, which is to say that it does.

    Args:
        stated: by the user.
        measures: of scouts.
        growth: by scout, how much more the largest job that is left holds; 1 where nothing is said.
        split: of the task.
    """
    if not measures:
        return stated
    grown = [max(1.0, (growth or {}).get(m.job, 1.0)) for m in measures]
    walltime = _above([g * m.wall_s for g, m in zip(grown, measures, strict=True)]) + LEAST_WALLTIME_S
    if split is not None and split.max_walltime_s is not None:
        walltime = max(walltime, split.max_walltime_s)
    memory = float(stated.memory_mb)
    if all(m.max_rss_mb > 0 for m in measures):
        limit = split.max_memory_mb if split is not None else None
        rss = [m.max_rss_mb * (g if limit else 1.0) for g, m in zip(grown, measures, strict=True)]
        memory = max(_above(rss) + LEAST_MEMORY_MB, limit or 0)
    return replace(
        stated,
        walltime_s=min(stated.walltime_s, walltime),
        memory_mb=min(stated.memory_mb, math.ceil(min(memory, 1e9))),
    )


def _above(values: Sequence[float]) -> float:
    """Above all of them, the more so the more they differ."""
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
    return max(max(values) * (1 + MARGIN), mean + SPREADS * spread)
