"""What users may change of a task that was submitted, and what has been changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from hpcpanda.domain.task import require_deadline, require_priority

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChanges:
    """What has become of a task's specification since it was submitted."""

    __pydantic_config__: ClassVar = _STRICT

    priority: int
    deadline: datetime | None
    tries: int = 1
    """How often its work was begun; its user has had it tried again once less."""
    more_memory: float = 1.0
    """So many times the memory that was asked for is asked for now, since some of it failed for want of memory."""
    more_time: float = 1.0
    """The same of the time that one job, or range, may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPriority:
    """Another priority for a task."""

    __pydantic_config__: ClassVar = _STRICT

    priority: int
    """Higher is served first, -1000..1000."""

    def __post_init__(self) -> None:
        require_priority(self.priority)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeadline:
    """Another deadline for a task, or none."""

    __pydantic_config__: ClassVar = _STRICT

    deadline: datetime | None
    """When it should be finished, with a time zone."""

    def __post_init__(self) -> None:
        require_deadline(self.deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """A site, or a node of one, that is given nothing for a while."""

    __pydantic_config__: ClassVar = _STRICT

    edge: str
    node: str | None
    """None: the whole site."""
    until: float
    """Unix seconds."""
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifted:
    """A site, or a node of one, that is given work again."""

    __pydantic_config__: ClassVar = _STRICT

    edge: str
    node: str | None = None
    """None: the site and all its nodes."""
