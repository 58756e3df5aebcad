"""What a user submits: the task, field by field, and the rules each field keeps."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar, Literal

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import Inputs
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload, Payload
from hpcpanda.domain.requirements import Requirements
from hpcpanda.domain.scouting import DEFAULT_SCOUTS, MAX_SCOUTS, has_to_be_learnt, require_split
from hpcpanda.domain.splitting import JobSplit
from hpcpanda.domain.validation import (
    MAX_EVENTS,
    require_between,
    require_name,
)

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


MAX_PRIORITY = 1000
"""Highest priority of a task; the lowest is as far below 0."""


def require_priority(priority: int, field: str = "priority") -> None:
    """Raise InvalidValue unless a task may have it."""
    require_between(field, priority, -MAX_PRIORITY, MAX_PRIORITY)


def require_deadline(deadline: datetime | None) -> None:
    """Raise InvalidValue when it is without a time zone."""
    if deadline is not None and deadline.utcoffset() is None:
        raise InvalidValue("deadline", f"{deadline} is without a time zone; end it with 'Z' or '+01:00'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one worker needs."""

    __pydantic_config__: ClassVar = _STRICT

    memory_mb: int = 2000
    """Resident memory a worker may use, MiB; beyond it the worker is ended and its range failed."""
    event_seconds: float | None = None
    """The user's guess of the cost of an event; a first value, replaced by what is measured."""
    range_timeout_s: float = 3600.0
    """Longest time one range may take before the worker is ended and the range failed."""
    setup_timeout_s: float = 600.0
    """Longest time the set-up may take."""

    def __post_init__(self) -> None:
        require_between("resources.memory_mb", self.memory_mb, 16, 16_000_000)
        if self.event_seconds is not None:
            require_between("resources.event_seconds", self.event_seconds, 1e-9, 1e7)
        require_between("resources.range_timeout_s", self.range_timeout_s, 0.1, 1e7)
        require_between("resources.setup_timeout_s", self.setup_timeout_s, 0.1, 1e6)

    def times(self, *, memory: float, time: float) -> Resources:
        """The same with so many times the memory and the time of a range, as far as there may be so much."""
        return replace(
            self,
            memory_mb=min(16_000_000, math.ceil(self.memory_mb * memory)),
            range_timeout_s=min(1e7, self.range_timeout_s * time),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePolicy:
    """How the event space is cut: ranges of learnt length, never longer than what may be lost."""

    __pydantic_config__: ClassVar = _STRICT

    target_seconds: float = 2.0
    """Time one range should take; also what a killed worker loses."""
    max_events: int | None = None
    """Upper limit of events a range; 1 makes every event a range of its own."""

    def __post_init__(self) -> None:
        require_between("ranges.target_seconds", self.target_seconds, 0.001, 86_400.0)
        if self.max_events is not None:
            require_between("ranges.max_events", self.max_events, 1, MAX_EVENTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPolicy:
    """What the user is willing to lose. Nothing, unless said otherwise."""

    __pydantic_config__: ClassVar = _STRICT

    max_failed_events: int = 0
    """More failed events than this fail the task."""
    attempts: int = 3
    """How often a single event is tried at a site before the site reports it as failed."""
    retries: int = 2
    """How often an event that a site has reported is tried again, elsewhere or with more memory or time, where its error
    says that this may help."""

    def __post_init__(self) -> None:
        require_between("loss.max_failed_events", self.max_failed_events, 0, MAX_EVENTS)
        require_between("loss.attempts", self.attempts, 1, 100)
        require_between("loss.retries", self.retries, 0, 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """Where inputs are read from, and where outputs go."""

    __pydantic_config__: ClassVar = _STRICT

    inputs: Literal["in-place", "copy"] = "in-place"
    """``copy``: input files are copied into the site's spool before work that needs them is handed to nodes."""
    destination: str | None = None
    """Absolute folder at the site into which the merged file and its manifest are moved; they stay in the spool when
    not said. ``{site}`` and ``{task}``, the task's number, are filled in; folders from the first of these on are made."""

    def __post_init__(self) -> None:
        folder = self.destination
        if folder is None:
            return
        if not folder.startswith("/") or "\0" in folder or ".." in folder.split("/"):
            raise InvalidValue("staging.destination", f"{folder!r} is not an absolute path without '..'")
        if set(re.findall(r"\{[^{}]*\}", folder)) - {"{site}", "{task}"}:
            raise InvalidValue(
                "staging.destination", f"only {{site}} and {{task}} are filled in, in {folder!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """Everything a user says about a task.

    Its event space is ``events``, or the entries of ``inputs``, or its ``jobs``: the jobs of a task are numbered,
    and their numbers are leased, journalled and merged as event numbers are. With ``split``, events or inputs are cut
    into such jobs.
    """

    __pydantic_config__: ClassVar = _STRICT

    name: str
    """For people; need not be unique."""
    payload: Payload
    output: Output
    events: int | None = None
    """Size of the event space ``[0, events)``."""
    inputs: Inputs | None = None
    """Input files whose entries are the event space."""
    jobs: int | None = None
    """Number of independent jobs, for a payload of the form ``job``."""
    split: JobSplit | None = None
    """How ``events`` or ``inputs`` are cut into jobs, for a payload of the form ``job`` in the place of ``jobs``."""
    job: JobRequest | None = None
    """What each job asks for."""
    scouts: int | None = None
    """So many jobs are run alone first; what they use decides what the others ask for, and where ``split`` has limits,
    how much a job holds. 10 where that has to be learnt, else none, unless said."""
    container: str | None = None
    """Image that commands run in, by the site's container runtime; as that runtime names images."""
    seed: int = 1
    """Task seed; with the event number it decides all randomness."""
    priority: int = 0
    """Higher is served first, -1000..1000."""
    group: str | None = None
    """Group for which it is done; decides from whose share it is served."""
    deadline: datetime | None = None
    """When it should be finished, with a time zone; the nearer, the sooner it is served."""
    requirements: Requirements = field(default_factory=Requirements)
    """What a site must offer to be given any of it."""
    resources: Resources = field(default_factory=Resources)
    ranges: RangePolicy = field(default_factory=RangePolicy)
    loss: LossPolicy = field(default_factory=LossPolicy)
    staging: Staging = field(default_factory=Staging)

    def __post_init__(self) -> None:
        require_name("name", self.name)
        if [self.events, self.inputs, self.jobs].count(None) != 2:
            raise InvalidValue("events", "say one of 'events', 'inputs' and 'jobs'")
        self._require_jobs()
        self._require_stageable()
        if self.events is not None:
            require_between("events", self.events, 1, MAX_EVENTS)
        if self.inputs is not None and self.inputs.events > MAX_EVENTS:
            raise InvalidValue("inputs.files", f"more than {MAX_EVENTS} entries in all")
        require_between("seed", self.seed, 0, 2**63 - 1)
        require_priority(self.priority)
        self._require_placeable()
        if self.output.format is OutputFormat.HDF5 and not isinstance(self.payload, CallablePayload):
            raise InvalidValue(
                "output.format", "hdf5 needs a callable payload that returns arrays; use concat or zip"
            )

    def _require_jobs(self) -> None:
        is_job = isinstance(self.payload, JobPayload)
        if is_job != (self.jobs is not None or self.split is not None):
            raise InvalidValue(
                "jobs",
                "goes with a payload of the form 'job', and only with that, as 'split' in its place does",
            )
        if self.job is not None and not is_job:
            raise InvalidValue(
                "job", "is for payloads of the form 'job'; 'resources' says what a worker needs"
            )
        if self.scouts is not None and not is_job:
            raise InvalidValue("scouts", "are jobs, for payloads of the form 'job'; leave it out")
        if self.jobs is not None:
            require_between("jobs", self.jobs, 1, MAX_EVENTS)
        if is_job:
            self._require_generable()
            if self.output.format is not OutputFormat.ZIP:
                raise InvalidValue("output.format", "the files of jobs are merged into an archive; use zip")
        if self.container is not None:
            if isinstance(self.payload, CallablePayload):
                raise InvalidValue("container", "is for commands; a callable runs in the workers' Python")
            if not self.container or self.container.startswith("-") or "\0" in self.container:
                raise InvalidValue("container", f"{self.container!r} does not name an image")

    def _require_generable(self) -> None:
        """The jobs can be made of what is said."""
        if self.scouts is not None:
            require_between("scouts", self.scouts, 0, MAX_SCOUTS)
        if self.split is None:
            return
        if self.jobs is not None:
            raise InvalidValue("split", "is how events or inputs are cut into jobs; leave 'jobs' out")
        grows = self.inputs is not None and self.inputs.grows
        if grows and (self.has_to_learn or self.scouts):
            raise InvalidValue(
                "inputs.grows",
                "jobs are cut as files come, and scouts would decide too late; leave it and read the dataset when it is closed, or "
                "cut by files_per_job, events_per_job, max_bytes, or max_walltime_s with resources.event_seconds, without scouts",
            )
        require_split(
            self.split,
            self.job or JobRequest(),
            of_files=self.inputs is not None,
            guessed=self._says_cost,
            scouts=self.scouts,
        )
        if (self.has_to_learn or grows) and isinstance(self.payload, JobPayload):
            words = (*self.payload.command, *self.payload.environment.values())
            if any("{jobs}" in word for word in words):
                when = "all files have come" if grows else "scouts have run"
                raise InvalidValue("payload.command", f"{{jobs}} is not known before {when}; leave it out")
        if self.staging.inputs == "copy":
            raise InvalidValue(
                "staging.inputs", "files that are split among jobs are read in place; leave it out"
            )

    def _require_placeable(self) -> None:
        if self.group is not None:
            require_name("group", self.group)
        require_deadline(self.deadline)

    def _require_stageable(self) -> None:
        if self.staging.inputs == "in-place":
            return
        of_dataset = self.inputs is not None and self.inputs.dataset is not None
        if not self.input_paths and not of_dataset:
            raise InvalidValue("staging.inputs", "there are no inputs to copy; leave it out")
        for path in self.input_paths:
            if path.rpartition("/")[2] in ("", ".", ".."):
                raise InvalidValue(
                    "staging.inputs", f"{path!r} does not name a file, and only files are copied"
                )

    @property
    def input_paths(self) -> tuple[str, ...]:
        """Paths of all inputs; of jobs, with ``{job}`` to be filled in."""
        if self.inputs is not None:
            return tuple(f.path for f in self.inputs.files)
        return self.payload.inputs if isinstance(self.payload, JobPayload) else ()

    @property
    def event_count(self) -> int:
        """Number of events, or jobs, in the event space."""
        return self.inputs.events if self.inputs is not None else (self.events or self.jobs or 0)

    @property
    def unit(self) -> Literal["event", "job"]:
        """What the event space consists of, in words."""
        return "job" if isinstance(self.payload, JobPayload) else "event"

    @property
    def job_request(self) -> JobRequest | None:
        """What each job asks for; None when this is a task of events."""
        return (self.job or JobRequest()) if isinstance(self.payload, JobPayload) else None

    @property
    def has_to_learn(self) -> bool:
        """Whether it cannot be cut into jobs before some have run."""
        return bool(has_to_be_learnt(self.split, guessed=self._says_cost))

    @property
    def scout_count(self) -> int:
        """How many jobs are run alone first, if there are so many."""
        return self.scouts if self.scouts is not None else DEFAULT_SCOUTS * self.has_to_learn

    @property
    def _says_cost(self) -> bool:
        return self.resources.event_seconds is not None and (self.job is None or self.job.nodes == 1)
