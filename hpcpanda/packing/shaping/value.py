"""What of an allocation is expected to become finished work: start-up, drain and preemption taken off. Pure.

Preemption is taken to strike without memory, at a rate that grows with the nodes held: the time to the first one is
exponentially distributed (as Young 1974 and Daly 2006 take it for checkpoints), and it ends the whole allocation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from hpcpanda.packing.tables import Floats, Ints

_HOUR: Final = 3600.0
_LEAST_RATE: Final = 1e-12
"""Expected preemptions a second below which the limit of no preemption is exact to all digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What takes useful time away from an allocation."""

    startup_s: float = 0.0
    """From its begin to its first event."""
    drain_s: float = 0.0
    """At its end, when it reaches its walltime."""
    loss_s: float = 0.0
    """At its end, when it is preempted: the grace time."""
    preemptions_per_node_hour: float = 0.0

    def held(self, nodes: Ints, life: Floats) -> Floats:
        """Expected seconds for which allocations are held that nothing but preemption ends before ``life``.

        The mean of ``min(life, X)`` with X exponential: ``(1 - exp(-r life)) / r``.
        """
        rate = self._rate(nodes)
        mean: Floats = np.where(
            rate > _LEAST_RATE, -np.expm1(-rate * life) / np.maximum(rate, _LEAST_RATE), life
        )
        return mean

    def useful(self, nodes: Ints, life: Floats, *, cut: Floats) -> Floats:
        """Expected useful seconds of each node of allocations.

        Args:
            nodes: of each allocation.
            life: seconds until it ends for certain.
            cut: 1 where that end is a preemption, 0 where it is its walltime; shapes broadcast.

        Returns:
            The part of the expected time held that lies behind the start-up, less the drain or the loss at its end.
        """
        rate = self._rate(nodes)
        ends = np.exp(-rate * life)
        begins = np.exp(-rate * self.startup_s)
        working = np.maximum(life - self.startup_s, 0.0)
        mean = np.where(
            rate > _LEAST_RATE, begins * -np.expm1(-rate * working) / np.maximum(rate, _LEAST_RATE), working
        )
        end = np.where(cut > 0, self.loss_s, self.drain_s)
        lost = ends * end + np.maximum(begins - ends, 0.0) * self.loss_s
        useful: Floats = np.maximum(mean - lost, 0.0)
        return useful

    def fit_s(self, life: float, *, cut: bool) -> float:
        """The longest piece of work that has time to end, when no preemption comes before ``life``."""
        return max(0.0, life - self.startup_s - (self.loss_s if cut else self.drain_s))

    def _rate(self, nodes: Ints) -> Floats:
        rate: Floats = nodes * np.float64(self.preemptions_per_node_hour / _HOUR)
        return rate
