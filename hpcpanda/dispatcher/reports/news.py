"""What a transaction has done that is of interest beyond it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class News:
    """Collected by a unit of work, and told when its changes are on disk."""

    tasks: set[int] = field(default_factory=set)
    """Numbers of tasks whose state or counts were written."""
    leases: int = 0
    """Leases granted."""
    leased: int = 0
    """Events and jobs in them."""
    commits: int = 0
    """Commits of edges taken in."""
    done: int = 0
    """Events and jobs recorded as done."""
    failed: int = 0
    """Events and jobs recorded as failed."""
    expired: int = 0
    """Leases ended before their holders were done."""


Told = Callable[[News], None]
"""Called with the news of every transaction that has changed something; it comes back at once."""


def tell_nobody(_: News) -> None:
    """For where nobody is interested."""
