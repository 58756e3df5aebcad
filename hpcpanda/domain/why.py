"""Why something was decided, as data: a code for programs, a sentence for people, and the numbers it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """One reason of one decision."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    code: str
    """A word that stays the same from release to release."""
    sentence: str
    """The same for people, with the numbers that matter."""
    numbers: dict[str, float] = field(default_factory=dict)
    """By name; times in seconds, shares 0..1, the rest counts."""
