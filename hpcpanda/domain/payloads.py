"""The user's code: the forms of a payload."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.validation import require_nonempty

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


Scalar = str | int | float | bool
"""A value of a payload's settings."""


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
