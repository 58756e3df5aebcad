"""A ZIP archive with one stored member for each output file of each job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from hpcpanda.merge.archive import Named, ZipMerger, lay_out_members
from hpcpanda.merge.digest import list_members
from hpcpanda.merge.layout import Layout
from hpcpanda.merge.plan import Plan

_UTF8: Final = 1 << 11
"""Flag of members whose names are UTF-8."""


class JobArchiveMerger(ZipMerger):
    """One member a file; each of them is a range of the plan."""

    def __init__(self, names: Sequence[bytes]) -> None:
        self._names = names

    def lay_out(self, plan: Plan, temporary: Path) -> Layout:
        """Members with the given names; their names and sizes are part of the digest."""
        lengths = np.fromiter(map(len, self._names), dtype=np.int64, count=len(self._names))
        layout = lay_out_members(plan, [self._of_length(lengths, n) for n in np.unique(lengths)], temporary)
        sizes = plan.ranges.length.tolist()
        known = list_members((name.decode(), size) for name, size in zip(self._names, sizes, strict=True))
        return replace(layout, known=tuple(known))

    def _of_length(self, lengths: np.ndarray, length: int) -> Named:
        rows = np.flatnonzero(lengths == length)
        names = np.frombuffer(b"".join([self._names[row] for row in rows.tolist()]), dtype=f"V{length}")
        return Named(rows=rows, names=names, flags=_UTF8)
