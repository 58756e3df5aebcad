"""Jobs of several whole nodes: some nodes of one kind and time are a room, and a job takes part of it. Pure.

When a job starts is decided first, as for cores of a node; which nodes it gets, after that: as many are free then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from hpcpanda.packing.placing.classes import JobClasses, Ranking
from hpcpanda.packing.placing.sweep import Filled, Room, sweep
from hpcpanda.packing.tables import Floats, Ints

BLOCK = 64
"""Nodes that are filled together, at least."""
RANKINGS = (Ranking(), Ranking(length=8.0, batch=0.0))
"""The second starts what must start early; it is better where there are few nodes."""


@dataclass(frozen=True, slots=True)
class WidePlace:
    """Nodes and start of a job of several nodes."""

    job: int
    nodes: tuple[int, ...]
    start: float


def place_wide(
    widths: Ints, seconds: Floats, nodes: Sequence[int], begin: float, end: float
) -> list[WidePlace]:
    """Place jobs on nodes that are alike, all free from one time to another.

    Args:
        widths: nodes of each job.
        seconds: time of each job.
        nodes: names of the nodes; the first are used the most.
        begin: since when the nodes are free.
        end: until when.

    Returns:
        The jobs that have a place, in the order of their starts.
    """
    block = max(BLOCK, 8 * int(widths.max(initial=1)))
    blocks = [nodes[i : i + block] for i in range(0, len(nodes), block)]
    attempts = []
    for ranking in RANKINGS:
        classes = JobClasses(widths[:, None].astype(np.float64), seconds, np.array([float(block)]), ranking)
        rooms = (Room(i, begin, end, (float(len(block)),)) for i, block in enumerate(blocks))
        attempts.append(sweep(classes, rooms, abreast=1))
        if not classes.left:
            break
    filled = max(attempts, key=lambda f: float((widths[f.job] * seconds[f.job]).sum()))
    return _give_nodes(filled, widths, seconds, blocks)


def _give_nodes(
    filled: Filled, widths: Ints, seconds: Floats, blocks: list[Sequence[int]]
) -> list[WidePlace]:
    """Nodes of its block for each job, as they are free at its start; the first are used the most."""
    free = [list(range(len(block))) for block in blocks]
    running: list[list[tuple[float, list[int]]]] = [[] for _ in blocks]
    placed: list[WidePlace] = []
    for i in np.lexsort((filled.job, filled.start)).tolist():
        job, number, start = filled.job[i], filled.node[i], filled.start[i]
        here, ends = free[number], running[number]
        while ends and ends[0][0] <= start:
            for index in heappop(ends)[1]:
                heappush(here, index)
        chosen = [heappop(here) for _ in range(int(widths[job]))]
        heappush(ends, (start + float(seconds[job]), chosen))
        placed.append(WidePlace(job, tuple(blocks[number][n] for n in chosen), start))
    return placed


def fewest_nodes(widths: Ints, seconds: Floats, length: float) -> tuple[int, list[WidePlace]]:
    """Few nodes that are enough for jobs within a time, and the places; each job fits by itself."""
    if not len(widths):
        return 0, []
    work = float((widths * seconds).sum())
    count = max(int(widths.max()), int(np.ceil(work / length - 1e-9)))
    while True:  # ends: with a node for each that they ask for, all start at once
        placed = place_wide(widths, seconds, range(count), 0.0, length)
        if len(placed) == len(widths):
            return count, placed
        here = np.ones(len(widths), dtype=np.bool_)
        here[[p.job for p in placed]] = False
        left = float((widths[here] * seconds[here]).sum())
        count += max(1, int(left / length / 2))
