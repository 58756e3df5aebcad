"""What moving data costs: throughput per link, given by the operator or learnt from copies.

A link is learnt as an exponentially weighted mean of seconds per byte, each copy counted by its size: small copies,
which are all start-up, then move it little. (The same mean of bytes a second would be ruled by the fastest.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

MEMORY_BYTES = 100e9
"""A link forgets by 1/e with so many bytes copied over it."""
DEFAULT_BYTES_PER_S = 50e6
"""Taken for a link of which nothing is known."""
MIN_BYTES_PER_S = 1.0
"""No link is taken to be slower."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What is known of the way from one site to another."""

    bytes_per_s: float
    seen: float = 0.0
    """Bytes that have been copied over it."""

    def learn(self, size: float, seconds: float) -> Link:
        """The link after one more copy."""
        rate = max(MIN_BYTES_PER_S, size / seconds)
        old = 1.0 - math.exp(-self.seen / MEMORY_BYTES)
        new = 1.0 - math.exp(-size / MEMORY_BYTES)
        weight = new / max(new, new + old * math.exp(-size / MEMORY_BYTES))
        slowness = (1.0 - weight) / self.bytes_per_s + weight / rate
        return Link(bytes_per_s=1.0 / slowness, seen=self.seen + size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The inputs of a task."""

    size: int = 0
    """Bytes in all."""
    at: Mapping[str, int] | None = None
    """Bytes that are at each site or store; None: they are wherever the task runs."""


NOWHERE = Data()
"""Inputs that are wherever the task runs."""
UNKNOWN_LINK = Link(bytes_per_s=DEFAULT_BYTES_PER_S)
"""A link of which nothing is known."""


def moving_seconds(data: Data, site: str, links: Mapping[tuple[str, str], Link]) -> float:
    """Seconds to bring to a site what it has not, over the best link from where it is.

    Of several sources the fastest serves as much as it has, then the next; infinite when some bytes are nowhere.
    """
    if data.at is None:
        return 0.0
    missing = max(0, data.size - data.at.get(site, 0))
    ways = sorted(
        (
            (links.get((source, site), UNKNOWN_LINK).bytes_per_s, held)
            for source, held in data.at.items()
            if source != site
        ),
        reverse=True,
    )
    seconds = 0.0
    for speed, held in ways:
        part = min(missing, held)
        seconds += part / speed
        missing -= part
    return math.inf if missing else seconds
