"""Backfill windows: nodes free now for a bounded time, and how sets of them are added up and used up.

The windows of one queue are disjoint: no node is in two of them. Windows of different queues may be the same
nodes seen twice, because batch systems let queues share nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, inf

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_between

MAX_NODES = 10_000_000
"""More nodes than any machine has."""
STEP_S = 60.0
"""Ends are told in whole minutes, rounded down: a planner sees few lengths, however many jobs there are."""
MAX_SECONDS = 1e10
"""A longer time than any batch system speaks of; beyond it a window has no known end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillWindow:
    """Nodes of a queue that are free now, all for the same time."""

    queue: str | None
    """None: the batch system's default queue."""
    nodes: int
    seconds: float | None = None
    """For how long; None when no end is known."""

    def __post_init__(self) -> None:
        if self.queue == "":
            raise InvalidValue("queue", "is empty; say None for the default queue")
        require_between("nodes", self.nodes, 1, MAX_NODES)
        if self.seconds is not None:
            require_between("seconds", self.seconds, 0.0, MAX_SECONDS)
            if self.seconds == 0:
                raise InvalidValue("seconds", "a window of no length is none")

    @property
    def length(self) -> float:
        """Seconds, with infinity for no known end: for comparing."""
        return inf if self.seconds is None else self.seconds

    def __str__(self) -> str:
        length = "without a known end" if self.seconds is None else f"for {self.seconds:.0f} s"
        queue = f"queue {self.queue}" if self.queue else "the default queue"
        return f"the window of {self.nodes} node{'s' * (self.nodes != 1)} {length} in {queue}"


def order(windows: Iterable[BackfillWindow]) -> tuple[BackfillWindow, ...]:
    """By queue, the default queue first; in a queue the longest first, of equal ones the widest."""
    return tuple(sorted(windows, key=lambda w: (w.queue or "", -w.length, -w.nodes)))


def merge(windows: Iterable[BackfillWindow]) -> tuple[BackfillWindow, ...]:
    """One window for each queue and length, with the nodes of all such windows, in order."""
    nodes: defaultdict[tuple[str | None, float | None], int] = defaultdict(int)
    for window in windows:
        nodes[window.queue, window.seconds] += window.nodes
    return order(
        BackfillWindow(queue=queue, nodes=min(count, MAX_NODES), seconds=seconds)
        for (queue, seconds), count in nodes.items()
    )


def shorten(
    windows: Iterable[BackfillWindow], *, by: float = 0.0, step: float = 0.0
) -> tuple[BackfillWindow, ...]:
    """What is left of windows after some time has passed, their ends rounded down to multiples of ``step``.

    Windows that are over are left out; those without a known end stay.
    """
    kept = []
    for window in windows:
        if window.seconds is None:
            kept.append(window)
            continue
        left = window.seconds - by
        left = floor(left / step) * step if step > 0 else left
        if left > 0:
            kept.append(BackfillWindow(queue=window.queue, nodes=window.nodes, seconds=left))
    return merge(kept)


def nodes_for(windows: Iterable[BackfillWindow], queue: str | None, seconds: float) -> int:
    """The most nodes of a queue that are free together for at least so long."""
    return sum(w.nodes for w in windows if w.queue == queue and w.length >= seconds)


def subtract(
    windows: Iterable[BackfillWindow], queue: str | None, nodes: int, seconds: float
) -> tuple[BackfillWindow, ...]:
    """The windows less nodes that are used for so long.

    The nodes come out of the shortest windows that are long enough. What exceeds them is taken from longer to
    shorter ones below, as the batch system might have placed it there.
    """
    mine = [w for w in windows if w.queue == queue]
    others = [w for w in windows if w.queue != queue]
    fitting = sorted((w for w in mine if w.length >= seconds), key=lambda w: w.length)
    below = sorted((w for w in mine if w.length < seconds), key=lambda w: -w.length)
    left: list[BackfillWindow] = []
    for window in [*fitting, *below]:
        taken = min(nodes, window.nodes)
        nodes -= taken
        if window.nodes > taken:
            left.append(BackfillWindow(queue=queue, nodes=window.nodes - taken, seconds=window.seconds))
    return merge([*others, *left])


def rectangles(windows: Sequence[BackfillWindow]) -> tuple[BackfillWindow, ...]:
    """Every largest shape: for each queue and length, all nodes that are free for at least that length.

    Unlike windows these overlap: using one uses up parts of the others.
    """
    shapes: list[BackfillWindow] = []
    queue: str | None = None
    nodes = 0
    for window in merge(windows):
        if window.queue != queue:
            queue, nodes = window.queue, 0
        nodes = min(nodes + window.nodes, MAX_NODES)
        shapes.append(BackfillWindow(queue=queue, nodes=nodes, seconds=window.seconds))
    return tuple(shapes)


def staircase(shapes: Iterable[BackfillWindow]) -> tuple[BackfillWindow, ...]:
    """Disjoint windows from overlapping shapes; the inverse of :func:`rectangles`.

    A batch system that says "8 nodes for an hour, 3 without end" is taken to count the 3 among the 8: should it
    have meant 11, less is asked for than could have been, never more.
    """
    counted: dict[str | None, int] = defaultdict(int)
    windows: list[BackfillWindow] = []
    for shape in order(shapes):
        more = shape.nodes - counted[shape.queue]
        if more > 0:
            counted[shape.queue] = shape.nodes
            windows.append(BackfillWindow(queue=shape.queue, nodes=more, seconds=shape.seconds))
    return merge(windows)
