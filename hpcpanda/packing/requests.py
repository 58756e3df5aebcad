"""Which allocations to ask for: holes, limits and work in, requests and reasons out. Pure and simple.

The rule in a sentence: take the largest hole that the work can use, ask for all of it, go on while limits and
work last; where there is no hole, or nothing is known of holes, keep one request waiting in the queue.

Holes are asked for as long as they last, not as long as the work at hand: more is fetched while an allocation runs,
and one that runs out of work ends by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import Site
from hpcpanda.domain.validation import require_between
from hpcpanda.packing.rigid import Beside, RigidJob, place_beside
from hpcpanda.packing.windows import BackfillWindow, nodes_for, rectangles, shorten, subtract

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
    ALLOCATION_LIMIT = "allocation-limit"
    NODE_LIMIT = "node-limit"
    WINDOW_TOO_SHORT = "window-too-short"
    WINDOW_UNSUITABLE = "window-unsuitable"
    """None of the work at hand fits into the hole."""
    ALREADY_QUEUED = "already-queued"
    """One request waits in the queue; more would only flood it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRules:
    """The bounds that every request keeps."""

    allocations: int
    """Allocations queued or running at a time."""
    nodes: int
    """Nodes of all allocations together."""
    fewest_nodes: int = 1
    """Nodes of one allocation, at least."""
    most_nodes: int | None = None
    """Nodes of one allocation, at most."""
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
        require_between("fewest_nodes", self.fewest_nodes, 1, 1_000_000)
        if self.most_nodes is not None:
            require_between("most_nodes", self.most_nodes, self.fewest_nodes, 1_000_000)
        require_between("step_s", self.step_s, 0.001, 3600.0)
        require_between("longest_s", self.longest_s, self.step_s, 1e7)
        require_between("shortest_s", self.shortest_s, 0.001, self.longest_s)
        require_between("drain_s", self.drain_s, 0.0, 1e7)
        require_between("start_margin_s", self.start_margin_s, 0.0, 1e7)
        if self.drain_s >= self.longest_s:
            raise InvalidValue("drain_s", "leaves nothing of the longest walltime to work in")

    @classmethod
    def of_site(cls, site: Site) -> RequestRules:
        """The bounds of a site file; the shortest walltime is four margins, and at least 5 s."""
        longest = site.allocation.walltime_s
        return cls(
            allocations=site.limits.allocations,
            nodes=site.node_limit,
            fewest_nodes=site.queue.min_nodes,
            most_nodes=site.queue.max_nodes,
            longest_s=longest,
            shortest_s=min(max(4 * site.allocation.margin_s, 5.0), longest),
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
class LooseWork:
    """Events, or jobs on one node: work that takes as many nodes as it gets, and goes on for as long as it gets them."""

    nodes: int
    """Nodes that it can keep busy."""
    seconds: float = 0.0
    """Time that the longest piece of it needs."""

    def __post_init__(self) -> None:
        require_between("nodes", self.nodes, 1, 1_000_000_000)
        require_between("seconds", self.seconds, 0.0, 1e7)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkAtHand:
    """What could be run now and that no held allocation takes."""

    loose: tuple[LooseWork, ...] = ()
    rigid: tuple[RigidJob, ...] = ()


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
        work: what could be run besides what the held allocations do.
        held: allocations that were asked for already.

    Returns:
        Requests that together keep the rules, and why there are no more of them. One without a window is added only
        where there is none with one, and while nothing waits in the queue.
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
        self._loose = sorted(work.loose, key=lambda w: (-w.seconds, -w.nodes))
        self._rigid = sorted(work.rigid, key=lambda j: (-j.nodes * j.seconds, -j.nodes))
        self._waiting = any(h.queued and h.queue == rules.queue for h in held)
        for h in sorted(held, key=lambda h: (-h.seconds, -h.nodes)):
            starts = nodes_for(self._holes, h.queue, h.seconds) >= h.nodes
            if h.queued and (starts or h.in_window):
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
        if not self._loose and not self._rigid:
            text = "All work at hand is covered." if self.requests else "There is no work."
            self._refuse(RefusalReason.NO_WORK, text)
        elif self._slots <= 0:
            text = f"All {self._rules.allocations} allocations of the site's limit are in use."
            self._refuse(RefusalReason.ALLOCATION_LIMIT, text)
        elif self._nodes < self._rules.fewest_nodes:
            text = f"Of the {self._rules.nodes} nodes of the site's limit {self._nodes} are left, too few for an allocation."
            self._refuse(RefusalReason.NODE_LIMIT, text)
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
                self._rigid_in(request).node_seconds,
                request.nodes * request.walltime_s,
                request.walltime_s,
            )
            if best is None or rank > best[0]:
                best = rank, request
        if best is not None:
            return best[1]
        for hole in short:
            text = f"Not used is {hole}: too short for a walltime of {self._rules.shortest_s:.0f} s and the margin."
            self._refuse(RefusalReason.WINDOW_TOO_SHORT, text, hole)
        for hole in unsuitable:
            text = f"Not used is {hole}: none of the work at hand fits into it."
            self._refuse(RefusalReason.WINDOW_UNSUITABLE, text, hole)
        return None

    def _fill(self, hole: BackfillWindow, walltime: float) -> AllocationRequest | None:
        """As much of a hole as limits and work allow; None when no work fits."""
        most = self._most(hole.nodes)
        nodes, seconds = self._shape(most, walltime)
        if not nodes:
            return None
        full = nodes == hole.nodes and seconds == walltime
        reason = RequestReason.FILLS_WINDOW if full else RequestReason.PART_OF_WINDOW
        if full:
            text = f"{_Text.shape(nodes, seconds)} fill {hole}."
        else:
            limited = nodes == most < hole.nodes
            what = "the limits of nodes allow" if limited else "the work at hand needs"
            text = f"{_Text.shape(nodes, seconds)} of {hole} are what {what}."
        return AllocationRequest(
            nodes=nodes, walltime_s=seconds, queue=hole.queue, reason=reason, sentence=text, window=hole
        )

    def _into_the_queue(self) -> AllocationRequest | None:
        """One request of the default shape, unless one waits."""
        if self.requests or self._waiting:
            text = f"A request waits in {_Text.queue(self._rules.queue)} already; one is enough."
            self._refuse(RefusalReason.ALREADY_QUEUED, text)
            return None
        walltime = self._rules.walltime(self._rules.longest_s)
        nodes, seconds = self._shape(self._most(self._nodes), walltime) if walltime else (0, 0.0)
        if not nodes:
            text = "None of the work at hand fits into the largest allocation that the site's limits allow."
            self._refuse(RefusalReason.WINDOW_UNSUITABLE, text)
            return None
        reason = RequestReason.NO_WINDOW if self._known else RequestReason.WINDOWS_UNKNOWN
        why = "no window can be used now" if self._known else "nothing is known of windows"
        text = f"{_Text.shape(nodes, seconds)} wait in {_Text.queue(self._rules.queue)}: {why}."
        return AllocationRequest(
            nodes=nodes, walltime_s=seconds, queue=self._rules.queue, reason=reason, sentence=text
        )

    def _most(self, nodes: int) -> int:
        """Nodes of an allocation, where there are so many."""
        return min(nodes, self._nodes, self._rules.most_nodes or nodes)

    def _shape(self, most: int, walltime: float) -> tuple[int, float]:
        """Nodes and walltime for the work, at most so many and so long; no nodes when none of it fits.

        Loose work takes all of the time, since more of it can be fetched; rigid work alone what it needs.
        """
        useful = walltime - self._rules.drain_s
        rigid = place_beside(self._rigid, most, useful)
        loose = sum(w.nodes for w in self._loose if w.seconds <= useful)
        if most < self._rules.fewest_nodes or not (rigid.nodes or loose):
            return 0, 0.0
        nodes = max(min(most, rigid.nodes + loose), self._rules.fewest_nodes)
        if loose or len(rigid.jobs) < len(self._rigid):
            return nodes, walltime
        needed = max(rigid.seconds + self._rules.drain_s, self._rules.shortest_s)
        steps = math.ceil(needed / self._rules.step_s - 1e-9)
        return nodes, min(walltime, steps * self._rules.step_s)

    def _rigid_in(self, request: AllocationRequest) -> Beside:
        return place_beside(self._rigid, request.nodes, request.walltime_s - self._rules.drain_s)

    def _accept(self, request: AllocationRequest) -> None:
        """Count a request against limits, holes and work."""
        self.requests.append(request)
        self._slots -= 1
        self._nodes -= request.nodes
        seconds = request.walltime_s + self._rules.start_margin_s
        self._holes = subtract(self._holes, request.queue, request.nodes, seconds)
        rigid = self._rigid_in(request)
        for job in rigid.jobs:
            self._rigid.remove(job)
        room = request.nodes - rigid.nodes
        useful = request.walltime_s - self._rules.drain_s
        left: list[LooseWork] = []
        for work in self._loose:
            taken = min(room, work.nodes) if work.seconds <= useful else 0
            room -= taken
            if work.nodes > taken:
                left.append(replace(work, nodes=work.nodes - taken))
        self._loose = left

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
