"""What the edge remembers of usage, beside the ledger of :mod:`hpcpanda.domain.usage`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRecord:
    """How far an allocation was counted."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    allocation_id: str
    until: float = 0.0
    """Up to when its present run was counted, Unix seconds."""
    counted_s: float = 0.0
    """Seconds of all its runs that were counted."""
    busy_s: float = 0.0
    """Core-seconds at work that were counted."""
    waited: bool = False
    """Its wait in the queue was counted."""
    used: dict[int, float] = field(default_factory=dict)
    """The same core-seconds by task."""
    earned: dict[int, float] = field(default_factory=dict)
    """Core-seconds by task of what was accepted from its journals."""
    closed: bool = False
    """It is over, and all of it was counted."""
