"""Dual feasible functions: sizes made larger or smaller so that what fitted together still fits. Pure; NumPy only.

A function f is dual feasible when for all sizes of which some fit into the capacity together, their f add up to 1 at
most. The f of all items, added up, is then a lower bound on bins (Lueker 1983). Those used here, with their
parameter, are surveyed and compared in Clautiaux, Alves, Valerio de Carvalho, "A survey of dual-feasible and
superadditive functions", Annals of Operations Research 179 (2010):

- volume: the size itself;
- threshold k: sizes above C - k fill a bin, those below k are forgotten. Its best k gives the bound L2 of Martello and
  Toth, "Lower bounds and reduction procedures for the bin packing problem", Discrete Applied Mathematics 28 (1990);
- steps k: the size rounded down to multiples of 1/k, after it was counted in units of 1/(k+1); u(k) of Fekete and
  Schepers, "New classes of fast lower bounds for bin packing problems", Mathematical Programming 91 (2001);
- rounding k: small sizes rounded down to multiples of k, large ones so that their complement is; Carlier, Clautiaux,
  Moukrim, "New reduction procedures and lower bounds for the two-dimensional bin packing problem with fixed
  orientation", Computers & Operations Research 34 (2007), where it is shown to be better than phi of Fekete and
  Schepers.

All decisions (above, below, multiple of) are made in integers; only the resulting shares are floating-point numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcpanda.packing.tables import Floats, Ints

MOST_THRESHOLDS = 256
"""Parameters of the threshold function that are tried; all that matter where there are no more distinct sizes."""
MOST_ROUNDINGS = 64
STEPS = 24
"""Largest k of the functions with k steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """Dual feasible functions at given sizes."""

    names: tuple[str, ...]
    """The first is the volume."""
    values: Floats
    """Row: a function. Column: a size. Its share of a bin, 0 to 1."""


def scales(sizes: Ints, capacity: int) -> Scales:
    """All functions that are worth trying at sizes.

    Args:
        sizes: distinct, ascending, 0 to the capacity.
        capacity: of a bin; at least 1, at most 2**40.
    """
    parts = (
        (["volume"], sizes[None, :] / capacity),
        _thresholds(sizes, capacity),
        _steps(sizes, capacity),
        _roundings(sizes, capacity),
    )
    return Scales(
        names=tuple(name for names, _ in parts for name in names),
        values=np.concatenate([values for _, values in parts]),
    )


_Named = tuple[list[str], Floats]
"""Functions, and their values: one function a row."""


def _thresholds(sizes: Ints, capacity: int) -> _Named:
    """Between two sizes the parameter does not matter, so that the sizes themselves are all there is to try."""
    k = _spread(sizes[(sizes > 1) & (2 * sizes <= capacity)], MOST_THRESHOLDS)[:, None]
    half = np.where(2 * sizes > capacity, 1.0, np.where(2 * sizes == capacity, 0.5, 0.0))
    values = np.where(sizes > capacity - k, 1.0, np.where(sizes < k, 0.0, sizes / capacity))
    names = [f"threshold {share:.3g}" for share in (k[:, 0] / capacity).tolist()]
    return ["more than half", *names], np.concatenate([half[None, :], values])


def _steps(sizes: Ints, capacity: int) -> _Named:
    k = np.arange(1, STEPS + 1, dtype=np.int64)[:, None]
    whole, rest = np.divmod((k + 1) * sizes, capacity)
    return [f"steps {n}" for n in k[:, 0].tolist()], np.where(rest == 0, whole / (k + 1), whole / k)


def _roundings(sizes: Ints, capacity: int) -> _Named:
    small = _spread(sizes[(sizes > 1) & (2 * sizes <= capacity)], MOST_ROUNDINGS)
    shares = capacity // np.arange(3, STEPS + 1, dtype=np.int64) + 1
    k = np.unique(np.concatenate([small, shares]))
    k = k[(k > 1) & (2 * k <= capacity)][:, None]
    full = capacity // k
    large = full - (capacity - sizes) // k
    counted = np.where(2 * sizes > capacity, large, np.where(2 * sizes == capacity, full / 2, sizes // k))
    return [f"rounding {share:.3g}" for share in (k[:, 0] / capacity).tolist()], counted / full


def _spread(values: Ints, most: int) -> Ints:
    """All values, or so many of them, evenly chosen by rank."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).astype(np.int64)]
