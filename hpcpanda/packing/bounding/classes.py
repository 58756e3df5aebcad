"""Sizes grouped into classes, each no larger than its members, so that a million jobs become a small table. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcpanda.packing.bounding.scales import STEPS
from hpcpanda.packing.tables import Ints

MOST_CLASSES = 1024
_SAMPLE = 65_536

TICKS = 864_864_000
"""A capacity in ticks: 2**8 * 3**3 * 5**3 * 7 * 11 * 13, so that the usual shares of it are whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """Sizes rounded down to a few."""

    sizes: Ints
    """Of the classes, distinct and ascending; the smallest size of a member, or less."""
    of: Ints
    """Class of each item."""


def classes(sizes: Ints, capacity: int) -> Classes:
    """Group sizes.

    There are as many classes as distinct sizes, up to a limit; beyond it, the borders are quantiles of the sizes and
    the points where the usual functions jump, just above 1/2, 1/3 and so on.

    Args:
        sizes: 0 to the capacity.
        capacity: of a bin.
    """
    if not len(sizes):
        return Classes(sizes=np.zeros(0, np.int64), of=np.zeros(0, np.int64))
    borders = np.unique(sizes[:: max(1, len(sizes) // _SAMPLE)])
    if len(borders) > MOST_CLASSES or len(sizes) >= 2 * _SAMPLE:
        if len(borders) > MOST_CLASSES:
            borders = borders[np.linspace(0, len(borders) - 1, MOST_CLASSES - 6 * STEPS).astype(np.int64)]
        borders = np.unique(np.concatenate([borders, _jumps(capacity), sizes.min(keepdims=True)]))
        borders = borders[borders <= sizes.max()]
    return Classes(sizes=borders, of=np.searchsorted(borders, sizes, side="right") - 1)


def _jumps(capacity: int) -> Ints:
    """A bin's half, third and so on, what is left of it beside those, and the next larger size of each."""
    parts = capacity // np.arange(2, STEPS + 2, dtype=np.int64)
    return np.concatenate([parts, parts + 1, capacity - parts, capacity - parts + 1, [0]])


def ticks(amounts: Ints, capacity: int) -> Ints:
    """Amounts as whole ticks of a capacity, rounded down.

    Args:
        amounts: 0 to the capacity.
        capacity: 1 to 10**10.
    """
    scaled: Ints = amounts * TICKS // capacity
    return scaled
