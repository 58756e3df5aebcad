"""What a user submits: the task, field by field, and the rules each field keeps."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Literal

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import Inputs
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.requirements import Requirements
from hpcpanda.domain.validation import (
    MAX_EVENTS,
    require_between,
    require_name,
    require_nonempty,
)

Scalar = str | int | float | bool
"""A value of a payload's settings."""

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallablePayload:
    """Python code: ``module:function`` called once a range with a :class:`hpcpanda.payload.RangeWork`."""

    __pydantic_config__: ClassVar = _STRICT

    call: str
    """``module:function``; returns a mapping of arrays, or bytes."""
    setup: str | None = None
    """``module:function`` run once a node before workers are forked; its result is ``work.state``."""
    settings: dict[str, Scalar] = field(default_factory=dict)
    """Free values handed to set-up and call."""
    python_path: tuple[str, ...] = ()
    """Folders put in front of ``sys.path``."""
    form: Literal["callable"] = "callable"

    def __post_init__(self) -> None:
        for name, value in (("call", self.call), ("setup", self.setup)):
            if value is not None:
                module, colon, function = value.partition(":")
                parts = [*module.split("."), function]
                if not colon or not all(p.isidentifier() for p in parts):
                    raise InvalidValue(f"payload.{name}", f"{value!r} is not of the form 'module:function'")


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandPayload:
    """A command run once a range; its output is the file it writes at ``{output}``."""

    __pydantic_config__: ClassVar = _STRICT

    command: tuple[str, ...]
    """Words of the command; ``{first} {last} {count} {seed} {output}``, and for each input file covered
    ``{input} {input_first} {input_last}``, are filled in. No shell."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables added to the worker's environment."""
    form: Literal["command"] = "command"

    def __post_init__(self) -> None:
        require_nonempty("payload.command", self.command)
        if not any("{output}" in word for word in self.command):
            raise InvalidValue("payload.command", "must name {output}, the file it writes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPayload:
    """A long-lived process that is fed ranges over the line protocol of docs/reference/payload.md."""

    __pydantic_config__: ClassVar = _STRICT

    command: tuple[str, ...]
    """Words of the command, started once a worker; ``{seed}`` is filled in. No shell."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables added to the process's environment."""
    form: Literal["process"] = "process"

    def __post_init__(self) -> None:
        require_nonempty("payload.command", self.command)


Payload = CallablePayload | CommandPayload | ProcessPayload | JobPayload
"""The user's code, in one of its forms; told apart by ``form``."""


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
    """How often a single event is tried before it is set aside."""

    def __post_init__(self) -> None:
        require_between("loss.max_failed_events", self.max_failed_events, 0, MAX_EVENTS)
        require_between("loss.attempts", self.attempts, 1, 100)


class OutputFormat(StrEnum):
    """What the merge writes."""

    HDF5 = "hdf5"
    """Arrays of all events, one dataset a column."""
    CONCAT = "concat"
    """The ranges' bytes one after the other."""
    ZIP = "zip"
    """One archive member a range, in event order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The task's merged file."""

    __pydantic_config__: ClassVar = _STRICT

    file: str
    """File name of the merged output; no folders."""
    format: OutputFormat = OutputFormat.HDF5

    def __post_init__(self) -> None:
        require_name("output.file", self.file)


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
    and their numbers are leased, journalled and merged as event numbers are.
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
    job: JobRequest | None = None
    """What each job asks for."""
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
        require_between("priority", self.priority, -1000, 1000)
        self._require_placeable()
        if self.output.format is OutputFormat.HDF5 and not isinstance(self.payload, CallablePayload):
            raise InvalidValue(
                "output.format", "hdf5 needs a callable payload that returns arrays; use concat or zip"
            )

    def _require_jobs(self) -> None:
        is_job = isinstance(self.payload, JobPayload)
        if is_job != (self.jobs is not None):
            raise InvalidValue("jobs", "goes with a payload of the form 'job', and only with that")
        if self.job is not None and not is_job:
            raise InvalidValue(
                "job", "is for payloads of the form 'job'; 'resources' says what a worker needs"
            )
        if self.jobs is not None:
            require_between("jobs", self.jobs, 1, MAX_EVENTS)
            if self.output.format is not OutputFormat.ZIP:
                raise InvalidValue("output.format", "the files of jobs are merged into an archive; use zip")
        if self.container is not None:
            if isinstance(self.payload, CallablePayload):
                raise InvalidValue("container", "is for commands; a callable runs in the workers' Python")
            if not self.container or self.container.startswith("-") or "\0" in self.container:
                raise InvalidValue("container", f"{self.container!r} does not name an image")

    def _require_placeable(self) -> None:
        if self.group is not None:
            require_name("group", self.group)
        if self.deadline is not None and self.deadline.utcoffset() is None:
            raise InvalidValue(
                "deadline", f"{self.deadline} is without a time zone; end it with 'Z' or '+01:00'"
            )

    def _require_stageable(self) -> None:
        if self.staging.inputs == "in-place":
            return
        if not self.input_paths:
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
        return "event" if self.jobs is None else "job"

    @property
    def job_request(self) -> JobRequest | None:
        """What each job asks for; None when this is a task of events."""
        return None if self.jobs is None else (self.job or JobRequest())
