"""A histogram over logarithmic buckets: quantiles of a stream with a stated relative error, in bounded room. Pure; NumPy.

The mapping is that of DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with
relative-error guarantees", PVLDB 12, 2019): bucket ``i`` holds the values in ``(g**(i-1), g**i]`` with
``g = (1 + e) / (1 - e)``, and tells ``2 g**i / (g + 1)`` of them, which is at most the share ``e`` off. Values are
seconds or MiB between fixed bounds, so there are never more than :data:`MOST_BUCKETS` buckets and none has to collapse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.packing.tables import Floats

RELATIVE_ERROR: Final = 0.01
"""A quantile is at most this share off a true value of that rank."""
LOWEST: Final = 1e-6
"""Smaller values count as this."""
HIGHEST: Final = 1e10
"""Larger values count as this."""

_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GAMMA: Final = math.log(_GAMMA)
_SLACK: Final = 1e-9
"""Of shares of weight: rounding of sums."""


def bucket(value: float) -> int:
    """The number of the bucket of a value."""
    return math.ceil(math.log(min(max(value, LOWEST), HIGHEST)) / _LOG_GAMMA)


def upper_edge(index: int) -> float:
    """The largest value of a bucket."""
    return math.exp(index * _LOG_GAMMA)


def middle(index: int) -> float:
    """The value that is at most the relative error off all values of a bucket."""
    return 2 * upper_edge(index) / (_GAMMA + 1)


FIRST_BUCKET: Final = bucket(LOWEST)
LAST_BUCKET: Final = bucket(HIGHEST)
MOST_BUCKETS: Final = LAST_BUCKET - FIRST_BUCKET + 1


@dataclass(slots=True, kw_only=True)
class Sketch:
    """What has been seen of a quantity, each value with a weight."""

    weights: dict[int, float] = field(default_factory=dict)
    """By bucket."""
    squares: float = 0.0
    """Sum of the squared weights of all values."""

    def add(self, value: float, weight: float = 1.0) -> None:
        """Count a value.

        Raises:
            InvalidValue: it is negative or not a number.
        """
        if not 0 <= value < math.inf:
            raise InvalidValue("value", f"{value} cannot be a time or a size")
        index = bucket(value)
        self.weights[index] = self.weights.get(index, 0.0) + weight
        self.squares += weight * weight

    def add_all(self, values: Floats, weights: Floats) -> None:
        """Count many values, each with its weight.

        Raises:
            InvalidValue: one is negative or not a number; none is counted.
        """
        if not len(values):
            return
        if not (values.min() >= 0 and values.max() < math.inf):
            raise InvalidValue("values", "one is negative or not a number, which no time or size can be")
        logs = np.log(np.minimum(np.maximum(values, LOWEST), HIGHEST)) / _LOG_GAMMA
        indices = np.ceil(logs).astype(np.int64)
        first = int(indices.min())
        sums = np.bincount(indices - first, weights=weights)
        for offset in np.flatnonzero(sums).tolist():
            self.weights[first + offset] = self.weights.get(first + offset, 0.0) + float(sums[offset])
        self.squares += float((weights * weights).sum())

    def copy(self) -> Sketch:
        """A sketch of the same values."""
        return Sketch(weights=dict(self.weights), squares=self.squares)

    def scale(self, factor: float, least: float = 0.0) -> None:
        """Multiply all weights; buckets that are left with less than ``least`` are forgotten."""
        scaled = {index: weight * factor for index, weight in self.weights.items()}
        self.weights = {index: weight for index, weight in scaled.items() if weight > least}
        self.squares = self.squares * factor * factor if self.weights else 0.0

    def __bool__(self) -> bool:
        return bool(self.weights)

    @property
    def total(self) -> float:
        """Weight of all values."""
        return math.fsum(self.weights.values())

    @property
    def samples(self) -> float:
        """How many equally weighted values tell as much: Kish's effective sample size ("Survey sampling", 1965)."""
        return self.total**2 / self.squares if self.squares > 0 else 0.0

    def ascending(self) -> Iterator[tuple[int, float]]:
        """Buckets with their weights, smallest values first."""
        return iter(sorted(self.weights.items()))

    def quantile(self, share: float) -> float | None:
        """The smallest value that at least this share of the weight does not exceed, at most the relative error off.

        None without any value.
        """
        left = (share - _SLACK) * self.total
        for index, weight in self.ascending():
            left -= weight
            if left <= 0:
                return middle(index)
        return None
