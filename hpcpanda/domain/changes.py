"""The signal that a task has changed: "look again", with where its events are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hpcpanda.domain.states import TaskState

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A task as it was when the signal was sent; changes that follow each other closely are told once."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    state: TaskState
    total: int
    ready: int
    leased: int
    done: int
    failed: int
