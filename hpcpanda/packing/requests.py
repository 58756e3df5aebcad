"""Which allocations to ask for: holes, limits and work in, requests and reasons out. Pure and simple.

The rule in a sentence: take the largest hole that the work can use, ask for all of it, go on while limits and
work last; where there is no hole, or nothing is known of holes, keep one request waiting in the queue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import Site
from hpcpanda.domain.validation import require_between
from hpcpanda.packing.rigid import RigidJob, Stacked, stack
from hpcpanda.packing.windows import BackfillWindow, rectangles, shorten, subtract

_MINUTE = 60.0


class RequestReason(StrEnum):
    """Why an allocation is asked for in this shape."""

    FILLS_WINDOW = "fills-window"
    """All nodes of a hole, for as long as it or the longest walltime lasts."""
    PART_OF_WINDOW = "part-of-window"
    """A limit, or the work at hand, is smaller than the hole."""
    NO_WINDOW = "no-window"
    """No hole can be used now; the request waits in the queue."""
    WINDOWS_UNKNOWN = "windows-unknown"
    """The batch system tells nothing of holes; the site's default shape."""


class RefusalReason(StrEnum):
    """Why nothing, or nothing more, is asked for."""

    NO_WORK = "no-work"
    TOO_LITTLE_WORK = "too-little-work"
    ALLOCATION_LIMIT = "allocation-limit"
    NODE_LIMIT = "node-limit"
    WINDOW_TOO_SHORT = "window-too-short"
    WINDOW_UNSUITABLE = "window-unsuitable"
    """Only rigid work is at hand, and none of it fits into the hole."""
    ALREADY_QUEUED = "already-queued"
    """One request waits in the queue; more would only flood it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """The bounds that every request keeps."""

    allocations: int
    """Allocations queued or running at a time."""
    nodes: int
    """Nodes of all allocations together."""
    cores: int
    """Cores of a node."""
    longest_s: float
    """Longest walltime; also that of a request without a window."""
    shortest_s: float
    """Shortest walltime worth the start-up."""
    drain_s: float = 0.0
    """End of an allocation in which no work is started."""
    start_margin_s: float = 30.0
    """A request ends this much before its window, which has shrunk by the time the job starts."""
    step_s: float = 1.0
    """Walltimes are multiples of it: batch systems round up to minutes, out of the window."""
    queue: str | None = None
    """Where requests without a window go."""

    def __post_init__(self) -> None:
        require_between("allocations", self.allocations, 1, 10_000)
        require_between("nodes", self.nodes, 1, 1_000_000)
        require_between("cores", self.cores, 1, 4096)
        require_between("step_s", self.step_s, 0.001, 3600.0)
        require_between("longest_s", self.longest_s, self.step_s, 1e7)
        require_between("shortest_s", self.shortest_s, 0.001, self.longest_s)
        require_between("drain_s", self.drain_s, 0.0, 1e7)
        require_between("start_margin_s", self.start_margin_s, 0.0, 1e7)
        if self.drain_s >= self.longest_s:
            raise InvalidValue("drain_s", "leaves nothing of the longest walltime to work in")

    @classmethod
    def of_site(cls, site: Site, *, shortest_s: float | None = None) -> RequestRules:
        """The bounds of a site file; the shortest walltime is four margins unless it is said."""
        longest = site.allocation.walltime_s
        if shortest_s is None:
            shortest_s = max(4 * site.allocation.margin_s, 5.0)
        return cls(
            allocations=site.limits.allocations,
            nodes=site.node_limit,
            cores=site.nodes.cores,
            longest_s=longest,
            shortest_s=min(shortest_s, longest),
            drain_s=site.allocation.margin_s,
            step_s=_MINUTE if longest >= _MINUTE else 1.0,
            queue=site.scheduler.queue,
        )

    def walltime(self, seconds: float) -> float | None:
        """The longest allowed walltime inside so many seconds; None when there is none.

        A walltime is a multiple of the step, and leaves time to work before the drain.
        """
        steps = math.floor(min(seconds, self.longest_s) / self.step_s + 1e-9)
        walltime = steps * self.step_s
        return walltime if walltime >= self.shortest_s and walltime > self.drain_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkAtHand:
    """What could be run now."""

    core_seconds: Mapping[int, float] = field(default_factory=dict)
    """Of events, by task: work that fits into any hole."""
    rigid: tuple[RigidJob, ...] = ()

    def __post_init__(self) -> None:
        for task, seconds in self.core_seconds.items():
            require_between(f"core_seconds of task {task}", seconds, 0.0, 1e18)


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """An allocation that was asked for before and has not ended."""

    nodes: int
    seconds: float
    """Walltime while it is queued, time left once it runs."""
    queue: str | None = None
    queued: bool = False
    in_window: bool = False
    """It was asked for to fill a hole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationRequest:
    """An allocation to ask for."""

    nodes: int
    walltime_s: float
    queue: str | None
    reason: RequestReason
    sentence: str
    """The reason, for people."""
    window: BackfillWindow | None = None
    """The hole it fits into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why nothing is asked for, of a hole or at all."""

    reason: RefusalReason
    sentence: str
    window: BackfillWindow | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPlan:
    """What to ask for, and what not, with reasons."""

    requests: tuple[AllocationRequest, ...]
    refusals: tuple[Refusal, ...]

    def explain(self) -> tuple[str, ...]:
        """All of it in sentences, requests first."""
        return (*(r.sentence for r in self.requests), *(r.sentence for r in self.refusals))


def plan_requests(
    windows: Sequence[BackfillWindow] | None,
    rules: RequestRules,
    work: WorkAtHand,
    held: Sequence[Held] = (),
) -> RequestPlan:
    """Turn holes and work into requests.

    Args:
        windows: the holes; None when nothing is known of them, empty when there are none.
        rules: bounds to keep.
        work: what could be run, including what the held allocations are going to do.
        held: allocations that were asked for already.
    """
    return _Planning(windows, rules, work, held).plan()


class _Planning:
    """One round: what is left of slots, nodes, holes and work while requests are chosen."""

    def __init__(
        self,
        windows: Sequence[BackfillWindow] | None,
        rules: RequestRules,
        work: WorkAtHand,
        held: Sequence[Held],
    ) -> None:
        self._rules = rules
        self._known = windows is not None
        self._holes = shorten(windows or ())
        self._slots = rules.allocations - len(held)
        self._nodes = rules.nodes - sum(h.nodes for h in held)
        covered = math.fsum(h.nodes * rules.cores * max(0.0, h.seconds - rules.drain_s) for h in held)
        self._events = max(0.0, math.fsum(work.core_seconds.values()) - covered)
        self._rigid = sorted(work.rigid, key=lambda j: (-j.nodes * j.seconds, -j.nodes))
        self._waiting = any(h.queued and not h.in_window and h.queue == rules.queue for h in held)
        for h in sorted(held, key=lambda h: (-h.seconds, -h.nodes)):
            if h.queued:
                self._holes = subtract(self._holes, h.queue, h.nodes, h.seconds)
        self.requests: list[AllocationRequest] = []
        self.refusals: list[Refusal] = []

    def plan(self) -> RequestPlan:
        while self._may_ask():
            request = self._into_a_hole() or self._into_the_queue()
            if request is None:
                break
            self._accept(request)
        return RequestPlan(requests=tuple(self.requests), refusals=tuple(self.refusals))

    def _may_ask(self) -> bool:
        """Whether limits and work allow one more request; says why not."""
        least = self._rules.cores * (max(self._rules.shortest_s, self._rules.drain_s) - self._rules.drain_s)
        if not self._events and not self._rigid:
            text = "All work at hand is covered." if self.requests else "There is no work."
            self._refuse(RefusalReason.NO_WORK, text)
        elif self._events < least and not self._rigid:
            text = f"The work left, {self._events:.0f} core-seconds, is less than a node does in the shortest allocation."
            self._refuse(RefusalReason.TOO_LITTLE_WORK, text)
        elif self._slots <= 0:
            text = f"All {self._rules.allocations} allocations of the site's limit are in use."
            self._refuse(RefusalReason.ALLOCATION_LIMIT, text)
        elif self._nodes <= 0:
            self._refuse(
                RefusalReason.NODE_LIMIT, f"All {self._rules.nodes} nodes of the site's limit are in use."
            )
        else:
            return True
        return False

    def _into_a_hole(self) -> AllocationRequest | None:
        """The request that uses the most of a hole; rigid work decides first, since it fits into few."""
        best: tuple[tuple[float, float, float], AllocationRequest] | None = None
        short: list[BackfillWindow] = []
        unsuitable: list[BackfillWindow] = []
        for hole in rectangles(self._holes):
            walltime = self._rules.walltime(hole.length - self._rules.start_margin_s)
            if walltime is None:
                short.append(hole)
                continue
            request = self._fill(hole, walltime)
            if request is None:
                unsuitable.append(hole)
                continue
            rank = (
                self._stacked_in(request).node_seconds,
                request.nodes * request.walltime_s,
                request.walltime_s,
            )
            if best is None or rank > best[0]:
                best = rank, request
        if best is not None:
            return best[1]
        for hole in short:
            text = f"Not used is {_Text.hole(hole)}: too short for a walltime of {self._rules.shortest_s:.0f} s and the margin."
            self._refuse(RefusalReason.WINDOW_TOO_SHORT, text, hole)
        for hole in unsuitable:
            text = f"Not used is {_Text.hole(hole)}: no job at hand fits into it."
            self._refuse(RefusalReason.WINDOW_UNSUITABLE, text, hole)
        return None

    def _fill(self, hole: BackfillWindow, walltime: float) -> AllocationRequest | None:
        """As much of a hole as limits and work allow; None when no work fits."""
        most = min(hole.nodes, self._nodes)
        nodes, seconds = self._shape(most, walltime)
        if not nodes:
            return None
        full = nodes == hole.nodes and seconds == walltime
        reason = RequestReason.FILLS_WINDOW if full else RequestReason.PART_OF_WINDOW
        if full:
            text = f"{_Text.shape(nodes, seconds)} fill {_Text.hole(hole)}."
        else:
            what = "the node limit allows" if nodes == self._nodes < hole.nodes else "the work at hand needs"
            text = f"{_Text.shape(nodes, seconds)} of {_Text.hole(hole)} are what {what}."
        return AllocationRequest(
            nodes=nodes, walltime_s=seconds, queue=hole.queue, reason=reason, sentence=text, window=hole
        )

    def _into_the_queue(self) -> AllocationRequest | None:
        """One request of the default shape, unless one waits."""
        if any(r.window is None for r in self.requests) or self._waiting:
            text = f"A request without a window waits in {_Text.queue(self._rules.queue)}; one is enough."
            self._refuse(RefusalReason.ALREADY_QUEUED, text)
            return None
        if self.requests:  # holes were found and used; the rest of the work waits for what they bring
            return None
        walltime = self._rules.walltime(self._rules.longest_s)
        nodes, seconds = self._shape(self._nodes, walltime) if walltime else (0, 0.0)
        if not nodes:
            text = "No job at hand fits into the largest allocation that the site's limits allow."
            self._refuse(RefusalReason.WINDOW_UNSUITABLE, text)
            return None
        reason = RequestReason.NO_WINDOW if self._known else RequestReason.WINDOWS_UNKNOWN
        why = "no window can be used now" if self._known else "nothing is known of windows"
        text = f"{_Text.shape(nodes, seconds)} wait in {_Text.queue(self._rules.queue)}: {why}."
        return AllocationRequest(
            nodes=nodes, walltime_s=seconds, queue=self._rules.queue, reason=reason, sentence=text
        )

    def _shape(self, most: int, walltime: float) -> tuple[int, float]:
        """Nodes and walltime for the work, at most so many and so long; no nodes when none of it fits.

        Fewer nodes for the whole time come before all nodes for a shorter one: start-up is paid for each node.
        """
        useful = walltime - self._rules.drain_s
        rigid = stack(self._rigid, most, useful)
        node_seconds = self._events / self._rules.cores + rigid.node_seconds
        if node_seconds <= 0:
            return 0, 0.0
        wanted = math.ceil(min(node_seconds / useful, most) - 1e-9)
        nodes = max(1, min(most, wanted), rigid.nodes)
        needed = max(node_seconds / nodes, rigid.seconds) + self._rules.drain_s
        steps = math.ceil(max(needed, self._rules.shortest_s) / self._rules.step_s - 1e-9)
        return nodes, min(walltime, steps * self._rules.step_s)

    def _stacked_in(self, request: AllocationRequest) -> Stacked:
        return stack(self._rigid, request.nodes, request.walltime_s - self._rules.drain_s)

    def _accept(self, request: AllocationRequest) -> None:
        """Count a request against limits, holes and work."""
        self.requests.append(request)
        self._slots -= 1
        self._nodes -= request.nodes
        seconds = request.walltime_s + self._rules.start_margin_s
        self._holes = subtract(self._holes, request.queue, request.nodes, seconds)
        rigid = self._stacked_in(request)
        for job in rigid.jobs:
            self._rigid.remove(job)
        room = request.nodes * (request.walltime_s - self._rules.drain_s) - rigid.node_seconds
        self._events = max(0.0, self._events - max(0.0, room) * self._rules.cores)

    def _refuse(self, reason: RefusalReason, sentence: str, window: BackfillWindow | None = None) -> None:
        self.refusals.append(Refusal(reason=reason, sentence=sentence, window=window))


class _Text:
    """Words for the explanations."""

    @staticmethod
    def queue(queue: str | None) -> str:
        return f"queue {queue}" if queue else "the default queue"

    @staticmethod
    def shape(nodes: int, seconds: float) -> str:
        return f"{nodes} node{'s' * (nodes != 1)} for {seconds:.0f} s"

    @classmethod
    def hole(cls, hole: BackfillWindow) -> str:
        length = "without a known end" if hole.seconds is None else f"for {hole.seconds:.0f} s"
        plural = "s" * (hole.nodes != 1)
        return f"the window of {hole.nodes} node{plural} {length} in {cls.queue(hole.queue)}"
