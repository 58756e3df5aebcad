"""One-dimensional bins, by reduction: fill bins that some best packing has, and bound what is left. Pure; NumPy only.

Martello and Toth, "Lower bounds and reduction procedures for the bin packing problem", Discrete Applied Mathematics 28
(1990): the reduction MTRP, the bound L2, and L3, which takes turns with both and with leaving out the smallest item.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from hpcpanda.packing.tables import Ints


def reduced_bound(sizes: Sequence[int], capacity: int) -> int:
    """The bound L3; takes time of the third power of the number of items at worst.

    Args:
        sizes: 0 to the capacity.
        capacity: of a bin.
    """
    left = sorted(s for s in sizes if s > 0)
    filled = best = 0
    while left:
        bins, left = _reduce(left, capacity)
        filled += bins
        best = max(best, filled + _threshold_bound(np.array(left, np.int64), capacity))
        left = left[1:]
    return best


def _reduce(sizes: list[int], capacity: int) -> tuple[int, list[int]]:
    """Take out bins that are in some best packing; how many, and the items left, ascending."""
    left = list(sizes)
    bins = 0
    at = len(left) - 1
    while at >= 0:
        item = left.pop(at)
        beside = _dominating(left, capacity - item)
        if beside is None:
            left.insert(at, item)
            at -= 1
            continue
        bins += 1
        for place in beside:
            del left[place]
        at = len(left) - 1
    return bins, left


def _dominating(items: list[int], gap: int) -> tuple[int, ...] | None:
    """Places, descending, of at most two items that are best put into a gap; None when that is not clear.

    They are best when each set of items that fits can be exchanged for them, item by item or two for a larger one.
    """
    fitting = bisect_right(items, gap)
    if not fitting:
        return ()
    largest = fitting - 1
    if items[largest] == gap or fitting == 1 or items[0] + items[1] > gap:
        return (largest,)
    if fitting > 2 and items[0] + items[1] + items[2] <= gap:
        return None
    if items[largest] >= _best_pair(items[:fitting], gap):
        return (largest,)
    partner = min(bisect_right(items, gap - items[largest]), largest) - 1
    second = max(i for i in range(fitting - 1) if items[i] + items[i + 1] <= gap)
    return (largest, partner) if partner >= 0 and items[partner] >= items[second] else None


def _best_pair(items: list[int], gap: int) -> int:
    """The largest sum of two items that fits; some two do."""
    best, low, high = 0, 0, len(items) - 1
    while low < high:
        total = items[low] + items[high]
        if total > gap:
            high -= 1
        else:
            best = max(best, total)
            low += 1
    return best


def _threshold_bound(sizes: Ints, capacity: int) -> int:
    """The bound L2: for a threshold, items that only smaller ones fit beside, and what the volume of those adds.

    Args:
        sizes: ascending.
        capacity: of a bin.
    """
    if not len(sizes):
        return 0
    volumes = np.concatenate([[0], np.cumsum(sizes)])
    half = int(np.searchsorted(sizes, capacity // 2, side="right"))
    thresholds = np.concatenate([[0], sizes[:half]])
    alone = np.searchsorted(sizes, capacity - thresholds, side="right")
    small = np.searchsorted(sizes, thresholds, side="left")
    space = (alone - half) * capacity - (volumes[alone] - volumes[half])
    rest = np.maximum(volumes[half] - volumes[small] - space, 0)
    return int((len(sizes) - half - (-rest // capacity)).max())
