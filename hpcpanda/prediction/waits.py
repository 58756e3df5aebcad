"""How long allocations wait in the batch queue, by shape: nodes and walltime in octaves. Pure; NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from hpcpanda.domain.validation import require_between
from hpcpanda.packing.forecast import QueueWait
from hpcpanda.packing.tables import Floats, Ints
from hpcpanda.prediction.observations import Observations
from hpcpanda.prediction.sketch import Sketch, middle

SHORTEST_S: Final = 900.0
"""Walltimes up to this are of one class; then each class reaches twice as far."""
LAST_NODES: Final = 20
"""Class of the widest shapes: up to ``2**20`` nodes."""
LAST_WALLTIME: Final = 14
"""Class of the longest."""
SHRINK_SAMPLES: Final = 3.0
"""A shape that was seen seldom is as all shapes together, which count as so many allocations of it."""
_SLACK: Final = 1e-9

ShapeClass = tuple[int, int]
"""Numbers of the classes of nodes and of walltime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An allocation that waits in the queue now."""

    nodes: int
    walltime_s: float
    seconds: float
    """For so long."""


def shape_class(nodes: int, walltime_s: float) -> ShapeClass:
    """The classes of a shape.

    Raises:
        InvalidValue: it is none.
    """
    require_between("nodes", nodes, 1, 1_000_000_000)
    require_between("walltime_s", walltime_s, 1e-3, 1e10)
    return (
        min(math.ceil(math.log2(nodes)), LAST_NODES),
        min(max(0, math.ceil(math.log2(walltime_s / SHORTEST_S))), LAST_WALLTIME),
    )


@dataclass(slots=True, kw_only=True)
class QueueWaits:
    """Waits by class of shape; those that ended without a start, and those that go on, were left early."""

    seen: dict[ShapeClass, Observations] = field(default_factory=dict)

    def of(self, shape: ShapeClass) -> Observations:
        """What was seen of a class, to be added to."""
        return self.seen.setdefault(shape, Observations())

    def scale(self, factor: float, least: float) -> None:
        """Multiply all weights; classes of which nothing is left are forgotten."""
        for waits in self.seen.values():
            waits.scale(factor, least)
        self.seen = {shape: waits for shape, waits in self.seen.items() if waits}

    def forecast(self, scale: float, waiting: Sequence[Waiting] = ()) -> tuple[QueueWait, ...]:
        """The waits to be expected by shape, small shapes first.

        A quantile that is not known, since so many still wait, is told as the longest wait: it is at least that.

        Args:
            scale: the weight of a wait that is seen now.
            waiting: allocations that wait now.
        """
        known = {shape: waits.copy() for shape, waits in self.seen.items() if waits}
        for request in waiting:
            shape = shape_class(request.nodes, request.walltime_s)
            known.setdefault(shape, Observations()).censored.add(max(0.0, request.seconds), scale)
        if not known:
            return ()
        shapes = sorted(known)
        waits = [known[shape] for shape in shapes]
        buckets = sorted({b for seen in waits for b in (*seen.ended.weights, *seen.censored.weights)})
        ended = _rows(buckets, [seen.ended for seen in waits])
        censored = _rows(buckets, [seen.censored for seen in waits])
        counts = ended.sum(axis=1) / scale
        together, left = ended.sum(axis=0), censored.sum(axis=0)
        share = SHRINK_SAMPLES * scale / (together.sum() + left.sum())
        ended, censored = ended + share * together, censored + share * left
        medians, p90s = _quantile(ended, censored, 0.5), _quantile(ended, censored, 0.9)
        return tuple(
            QueueWait(
                nodes=2**nodes,
                seconds=SHORTEST_S * 2**walltime,
                median_s=middle(buckets[medians[row]]),
                p90_s=middle(buckets[p90s[row]]),
                seen=round(float(counts[row])),
            )
            for row, (nodes, walltime) in enumerate(shapes)
        )


def _rows(buckets: Sequence[int], sketches: Sequence[Sketch]) -> Floats:
    """Weights of these buckets, a row for each sketch: only buckets that some sketch uses, for they are few of all."""
    place = {bucket: column for column, bucket in enumerate(buckets)}
    rows: Floats = np.zeros((len(sketches), len(buckets)))
    for row, sketch in zip(rows, sketches, strict=True):
        if sketch.weights:
            row[[place[bucket] for bucket in sketch.weights]] = list(sketch.weights.values())
    return rows


def _quantile(ended: Floats, censored: Floats, share: float) -> Ints:
    """Of each row the column of the bucket that this share does not exceed, see :meth:`Observations.survival`, or the last that holds
    anything."""
    weights = ended + censored
    at_risk = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1]
    died = np.divide(ended, at_risk, out=np.zeros_like(ended), where=ended > 0)
    larger = np.cumprod(np.where(died < 1 - _SLACK, 1 - died, 0.0), axis=1)
    reached = larger <= 1 - share + _SLACK
    last = weights.shape[1] - 1 - np.argmax(weights[:, ::-1] > 0, axis=1)
    found: Ints = np.where(reached.any(axis=1), np.argmax(reached, axis=1), last)
    return found
