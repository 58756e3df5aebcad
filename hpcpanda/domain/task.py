"""What a user submits: the task, field by field, and the rules each field keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import ClassVar, Literal

from hpcpanda.domain.errors import InvalidValue
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


Payload = CallablePayload | CommandPayload | ProcessPayload
"""The user's code, in one of its three forms; told apart by ``form``."""


class InputFormat(StrEnum):
    """File formats whose entries can be an event space."""

    ROOT = "root"
    HDF5 = "hdf5"
    LHE = "lhe"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One input file and its share of the event space."""

    __pydantic_config__: ClassVar = _STRICT

    path: str
    """Absolute path on the site's file system."""
    events: int
    """Entries in the file; counted at submission."""
    clusters: tuple[int, ...] = ()
    """Entry numbers at which reading may start cheaply, increasing, without 0 and the end."""

    def __post_init__(self) -> None:
        if not self.path.startswith("/") or "\0" in self.path:
            raise InvalidValue("inputs.files.path", f"{self.path!r} is not an absolute path")
        require_between("inputs.files.events", self.events, 1, MAX_EVENTS)
        cuts = (0, *self.clusters, self.events)
        if any(a >= b for a, b in pairwise(cuts)):
            raise InvalidValue("inputs.files.clusters", "must be increasing and inside the file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Input files; their entries, one file after the other, are the event space."""

    __pydantic_config__: ClassVar = _STRICT

    format: InputFormat
    files: tuple[InputFile, ...]
    container: str | None = None
    """ROOT: name of the tree. HDF5: name of the dataset whose length counts entries. LHE: not used."""

    def __post_init__(self) -> None:
        require_nonempty("inputs.files", self.files)
        if self.format is not InputFormat.LHE and not self.container:
            raise InvalidValue("inputs.container", f"{self.format} files need the name of a tree or dataset")

    @property
    def events(self) -> int:
        """Entries of all files together."""
        return sum(f.events for f in self.files)


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
class TaskSpec:
    """Everything a user says about a task. The event space is either ``events`` or the entries of ``inputs``."""

    __pydantic_config__: ClassVar = _STRICT

    name: str
    """For people; need not be unique."""
    payload: Payload
    output: Output
    events: int | None = None
    """Size of the event space ``[0, events)``."""
    inputs: Inputs | None = None
    """Input files whose entries are the event space."""
    seed: int = 1
    """Task seed; with the event number it decides all randomness."""
    priority: int = 0
    """Higher is served first, -1000..1000."""
    resources: Resources = field(default_factory=Resources)
    ranges: RangePolicy = field(default_factory=RangePolicy)
    loss: LossPolicy = field(default_factory=LossPolicy)

    def __post_init__(self) -> None:
        require_name("name", self.name)
        if (self.events is None) == (self.inputs is None):
            raise InvalidValue("events", "say either 'events' or 'inputs', one of them")
        if self.events is not None:
            require_between("events", self.events, 1, MAX_EVENTS)
        if self.inputs is not None and self.inputs.events > MAX_EVENTS:
            raise InvalidValue("inputs.files", f"more than {MAX_EVENTS} entries in all")
        require_between("seed", self.seed, 0, 2**63 - 1)
        require_between("priority", self.priority, -1000, 1000)
        if self.output.format is OutputFormat.HDF5 and not isinstance(self.payload, CallablePayload):
            raise InvalidValue(
                "output.format", "hdf5 needs a callable payload that returns arrays; use concat or zip"
            )

    @property
    def event_count(self) -> int:
        """Number of events in the event space."""
        return self.inputs.events if self.inputs is not None else (self.events or 0)
