"""How often held nodes are preempted, by partition and hour of the week: Gamma-Poisson with exposure. Pure.

Preemptions in an hour of the week are Poisson in the node-hours held in it. The conjugate prior is a gamma distribution
(Gelman et al., "Bayesian data analysis", 3rd edition, section 2.6): that of an hour has the partition's mean and the
weight of a few preemptions, that of a partition is weak. An hour in which little was held is thus as the partition, and
a partition in which little was held as the assumption.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from hpcpanda.domain.errors import InvalidValue

HOURS: Final = 168
"""Of a week."""
ASSUMED_RATE: Final = 1e-5
"""Preemptions a node-hour while nothing is known: a node in eleven years, about as often as hardware fails. More would make
wide allocations look hopeless before anything has happened."""
ASSUMED_NODE_HOURS: Final = 10.0
"""What the assumption is worth."""
SHRINK_EVENTS: Final = 2.0
"""An hour of the week is believed half once so many preemptions are to be expected in what was held in it."""

_HOUR_S: Final = 3600.0
_EPOCH_HOUR: Final = 72
"""The Unix epoch was a Thursday; weeks begin on Monday, 0 h UTC."""


def hour_of_week(at: float) -> int:
    """The hour of the week of a time in Unix seconds, 0 is Monday 0-1 h UTC."""
    return (math.floor(at / _HOUR_S) + _EPOCH_HOUR) % HOURS


def by_hour(since: float, until: float) -> Iterator[tuple[int, float]]:
    """Hours of the week that a time reaches over, each with the hours of it that lie within.

    A time of several weeks, which no allocation lasts, is spread evenly.
    """
    if until - since > 2 * HOURS * _HOUR_S:
        yield from ((hour, (until - since) / HOURS / _HOUR_S) for hour in range(HOURS))
        return
    at = since
    while at < until:
        after = min(until, (math.floor(at / _HOUR_S) + 1) * _HOUR_S)
        yield hour_of_week(at), (after - at) / _HOUR_S
        at = after


def _zeros() -> list[float]:
    return [0.0] * HOURS


@dataclass(slots=True, kw_only=True)
class Hazard:
    """Preemptions seen in a partition, and node-hours held in it; weighted, by hour of the week."""

    preemptions: list[float] = field(default_factory=_zeros)
    node_hours: list[float] = field(default_factory=_zeros)

    def hold(self, nodes: int, since: float, until: float, weight: float) -> None:
        """Count nodes that were held from one time to another, Unix seconds.

        Raises:
            InvalidValue: there are no nodes, or the time is none.
        """
        if nodes < 1:
            raise InvalidValue("nodes", f"{nodes} cannot be held")
        if not (math.isfinite(since) and math.isfinite(until)):
            raise InvalidValue("since", f"{since} to {until} is not a time")
        for hour, hours in by_hour(since, until):
            self.node_hours[hour] += nodes * hours * weight

    def preempt(self, at: float, weight: float) -> None:
        """Count a preemption."""
        self.preemptions[hour_of_week(at)] += weight

    def scale(self, factor: float) -> None:
        """Multiply all weights."""
        self.preemptions = [count * factor for count in self.preemptions]
        self.node_hours = [hours * factor for hours in self.node_hours]

    def mean(self, scale: float) -> float:
        """Preemptions a node-hour in the mean over all hours. ``scale``: the weight of what is seen now."""
        return (math.fsum(self.preemptions) / scale + ASSUMED_RATE * ASSUMED_NODE_HOURS) / (
            math.fsum(self.node_hours) / scale + ASSUMED_NODE_HOURS
        )

    def rate(self, at: float, ahead_s: float, scale: float) -> float:
        """Preemptions a node-hour to be expected from a time on, in the mean over the time ahead."""
        mean = self.mean(scale)
        spans = list(by_hour(at, at + max(ahead_s, 1.0)))
        return math.fsum(self._of(hour, mean, scale) * hours for hour, hours in spans) / math.fsum(
            hours for _, hours in spans
        )

    def _of(self, hour: int, mean: float, scale: float) -> float:
        seen, held = self.preemptions[hour] / scale, self.node_hours[hour] / scale
        return (seen + SHRINK_EVENTS) / (held + SHRINK_EVENTS / mean)
