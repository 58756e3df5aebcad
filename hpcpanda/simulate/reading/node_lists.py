"""Lists of the nodes of each job, as some traces have them: how many nodes a job had, and which jobs shared one."""

from __future__ import annotations

import re
from array import array
from typing import Final

import numpy as np

from hpcpanda.domain.errors import TooLarge
from hpcpanda.simulate.reading.rows import FlawKind, Notes
from hpcpanda.simulate.trace import Ints

MAX_ENTRIES: Final = 50_000_000
"""Pairs of job and node that are kept."""
_LIST: Final = re.compile(r"\{([^{}]*)\}")
_SEPARATOR: Final = re.compile(r"[,\s]+")


class NodeLists:
    """Keeps which job was on which node, and when."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._node, self._line = array("q"), array("q")
        self._start, self._end = array("d"), array("d")

    def add(self, line: int, text: str, start: float, run: float) -> int:
        """Distinct nodes of the list in braces within a text; 0 when there is none.

        Raises:
            TooLarge: these are too many to keep.
        """
        if not (match := _LIST.search(text)):
            return 0
        names = set(_SEPARATOR.split(match[1])) - {""}
        if len(self._node) + len(names) > MAX_ENTRIES:
            raise TooLarge(
                f"line {line}: more than {MAX_ENTRIES:,} entries in lists of nodes; cut the trace into parts"
            )
        for name in names:
            self._node.append(self._numbers.setdefault(name, len(self._numbers)))
            self._line.append(line)
            self._start.append(start)
            self._end.append(start + run)
        return len(names)

    def report(self, notes: Notes) -> None:
        """Note the jobs that shared a node with another while both ran."""
        shared, at_once = self._shared()
        remedy = (
            f"Shared a node with another job; each was given whole nodes: {at_once} at once at most, where the lists"
            f" name {len(self._numbers)} nodes."
        )
        notes.add_all(FlawKind.SHARED_NODES, shared, remedy=remedy)

    def _shared(self) -> tuple[Ints, int]:
        """Lines of the jobs that shared, and the most pairs of job and node at one time."""
        node, line = np.array(self._node), np.array(self._line)
        start, end = np.array(self._start), np.array(self._end)
        told = np.isfinite(start) & (end > start)
        node, line, start, end = node[told], line[told], start[told], end[told]
        if not len(node):
            return line, 0
        order = np.lexsort((start, node))
        node, line, start, end = node[order], line[order], start[order], end[order]
        # One running maximum over all nodes: each node's times are moved behind those of the node before it.
        base = start.min()
        shift = node * (end.max() - base + 1.0) - base
        start, end = start + shift, end + shift
        latest = np.maximum.accumulate(end)
        behind = np.flatnonzero(start[1:] < latest[:-1]) + 1
        holders = np.flatnonzero(np.r_[True, end[1:] > latest[:-1]])
        before = holders[np.searchsorted(holders, behind - 1, side="right") - 1]
        steps = np.r_[np.ones(len(start)), -np.ones(len(end))]
        times = np.r_[start - shift, end - shift]
        at_once = int(np.cumsum(steps[np.lexsort((steps, times))]).max())
        return np.unique(line[np.r_[behind, before]]), at_once
