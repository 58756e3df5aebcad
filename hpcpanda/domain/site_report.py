"""What an edge tells of its site and of what it decided there: part of its messages to the dispatcher."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import MAX_EVENTS, plain_text, require_between, require_name
from hpcpanda.domain.why import Why

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


MAX_REASONS = 1000
"""Most tasks of which an edge says why they are where they are."""


MAX_CODE = 64


MAX_SENTENCE = 4000


MAX_NUMBERS = 32
"""Bounds of one reason."""


MAX_TRANSFERS = 100
"""Most copies told of in one sync."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReason:
    """Why a task is where it is, at the edge that says so."""

    __pydantic_config__: ClassVar = _STRICT

    task_id: int
    why: Why

    def __post_init__(self) -> None:
        if len(self.why.code) > MAX_CODE or len(self.why.sentence) > MAX_SENTENCE:
            raise InvalidValue(
                "why", f"code of more than {MAX_CODE} or sentence of more than {MAX_SENTENCE} characters"
            )
        object.__setattr__(
            self, "why", replace(self.why, sentence=plain_text(self.why.sentence, MAX_SENTENCE))
        )
        if not all(map(math.isfinite, self.why.numbers.values())):
            raise InvalidValue("why.numbers", "not all are finite; leave those out")
        if len(self.why.numbers) > MAX_NUMBERS or any(len(name) > MAX_CODE for name in self.why.numbers):
            raise InvalidValue(
                "why.numbers", f"more than {MAX_NUMBERS}, or a name of more than {MAX_CODE} characters"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Data that a site has copied to itself."""

    __pydantic_config__: ClassVar = _STRICT

    source: str
    """Site or store that it came from."""
    size: int
    """Bytes."""
    seconds: float

    def __post_init__(self) -> None:
        require_name("source", self.source)
        require_between("size", self.size, 1, MAX_EVENTS)
        require_between("seconds", self.seconds, 1e-6, 1e7)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReport:
    """What an edge has seen of its site since it last said so; brokerage learns from it."""

    __pydantic_config__: ClassVar = _STRICT

    queue_wait_s: float | None = None
    """How long an allocation asked for now is expected to wait; None says nothing."""
    transfers: tuple[Transfer, ...] = ()

    def __post_init__(self) -> None:
        if self.queue_wait_s is not None:
            require_between("site.queue_wait_s", self.queue_wait_s, 0.0, 1e8)
        if len(self.transfers) > MAX_TRANSFERS:
            raise InvalidValue("site.transfers", f"more than {MAX_TRANSFERS}; leave out the smallest")
