"""Which allocations to ask for: holes, limits, work and what was learnt in; requests and reasons out. Pure.

The rule in a sentence: cover the holes with the few rectangles that give the most useful time, as far as limits and work
last; where no hole can be used, nothing is known of holes, or work is urgent, keep a request waiting in the queue.

Holes are asked for as long as they last, not as long as the work at hand: more is fetched while an allocation runs,
and one that runs out of work ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from hpcpanda.packing.forecast import Forecast
from hpcpanda.packing.rigid import place_beside, without
from hpcpanda.packing.shaping.answer import (
    AllocationRequest,
    Refusal,
    RefusalReason,
    RequestPlan,
    RequestReason,
)
from hpcpanda.packing.shaping.cover import Rectangle, Step, Terms, cover
from hpcpanda.packing.shaping.holes import Holes
from hpcpanda.packing.shaping.queue import QueueShape, queue_shape, shape_of, useful_share
from hpcpanda.packing.shaping.rules import RequestRules
from hpcpanda.packing.shaping.work import Demand, Held, LooseWork, WorkAtHand
from hpcpanda.packing.windows import BackfillWindow

__all__ = [
    "AllocationRequest",
    "Held",
    "LooseWork",
    "Refusal",
    "RefusalReason",
    "RequestPlan",
    "RequestReason",
    "RequestRules",
    "WorkAtHand",
    "plan_requests",
]


def plan_requests(
    windows: Sequence[BackfillWindow] | None,
    rules: RequestRules,
    work: WorkAtHand,
    held: Sequence[Held] = (),
    forecast: Forecast | None = None,
    *,
    missed_for_s: float = 0.0,
) -> RequestPlan:
    """Turn holes and work into requests.

    Args:
        windows: the holes; None when nothing is known of them, empty when there are none. Those of another queue than
            the rules' are not looked at: they may be the same nodes.
        rules: bounds to keep.
        work: what could be run besides what the held allocations do.
        held: allocations that were asked for already.
        forecast: how allocations fare here.
        missed_for_s: for so long no hole is asked for, since requests for holes did not start lately.

    Returns:
        Requests that together keep the rules, and why there are no more of them: each hole that is not used has a
        refusal, or a limit of all has one.
    """
    return _Planning(windows, rules, work, held, forecast or Forecast(), missed_for_s).plan()


class _Planning:
    """One round: what is left of slots, nodes, holes and work while requests are chosen."""

    def __init__(
        self,
        windows: Sequence[BackfillWindow] | None,
        rules: RequestRules,
        work: WorkAtHand,
        held: Sequence[Held],
        forecast: Forecast,
        missed_for_s: float,
    ) -> None:
        self._rules = rules
        self._forecast = forecast
        self._prospect = rules.prospect(forecast)
        self._known = windows is not None
        self._missed_for_s = missed_for_s
        self._holes = Holes(windows or (), rules)
        self._holes.hold(held)
        self._slots = rules.allocations - len(held)
        self._nodes = rules.nodes - sum(h.nodes for h in held)
        self._demand = Demand(work)
        self._waiting = [h for h in held if h.queued and h.queue == rules.queue]
        self._price = rules.fewest_nodes * self._prospect.fit_s(rules.shortest_s, cut=False) / 2
        self.requests: list[AllocationRequest] = []
        self.refusals: list[Refusal] = []

    def plan(self) -> RequestPlan:
        if self._may_ask():
            if self._missed_for_s <= 0:
                self._rigid_into_holes()
                self._cover_holes()
            if self._may_ask():
                self._refuse_holes()
                self._into_the_queue()
        return RequestPlan(requests=tuple(self.requests), refusals=tuple(self.refusals))

    def _may_ask(self) -> bool:
        """Whether limits and work allow one more request; says why not."""
        rules = self._rules
        if not self._demand:
            text = "All work at hand is covered." if self.requests else "There is no work."
            self._refuse(RefusalReason.NO_WORK, text)
        elif self._slots <= 0:
            text = f"All {rules.allocations} allocations of the site's limit are in use."
            self._refuse(RefusalReason.ALLOCATION_LIMIT, text, limit=rules.allocations)
        elif self._nodes < rules.fewest_nodes:
            text = f"Of the {rules.nodes} nodes of the site's limit {self._nodes} are left, too few for an allocation."
            self._refuse(RefusalReason.NODE_LIMIT, text, limit=rules.nodes, left=self._nodes)
        else:
            return True
        return False

    # ---- holes ----

    @property
    def _hole_slots(self) -> int:
        """Slots for holes: one is kept for urgent work where there are several and none waits in the queue."""
        kept = self._demand.urgent and not self._waiting and self._slots > 1
        return self._slots - 1 if kept else self._slots

    def _rigid_into_holes(self) -> None:
        """Place rigid work first, for it fits into few holes: each time where the most of it fits side by side."""
        while self._demand.rigid and self._hole_slots > 0 and self._nodes >= self._rules.fewest_nodes:
            best: tuple[tuple[float, float, float], int, Step, int] | None = None
            width = 0
            for step in self._holes.steps(self._demand, self._prospect):
                width += step.nodes
                fit = self._prospect.fit_s(step.life, cut=step.cut)
                if not step.walltime_s or self._most(width) < self._rules.fewest_nodes:
                    continue
                placed = place_beside(self._demand.rigid, self._most(width), fit)
                if not placed.nodes:
                    continue
                rank = (placed.node_seconds, width * step.life, step.life)
                if best is None or rank > best[0]:
                    best = rank, width, step, placed.nodes
            if best is None:
                return
            _, width, step, rigid = best
            most = width if self._hole_slots == 1 else max(rigid, step.nodes, self._rules.fewest_nodes)
            self._ask_in_hole(step, most=most, window=width)

    def _cover_holes(self) -> None:
        """Cover what is left of the holes, as far as loose work lasts.

        The best cover is worked out for work without end; where it ends earlier, what is left is covered anew.
        """
        while self._demand.loose and self._hole_slots > 0 and self._nodes >= self._rules.fewest_nodes:
            steps = self._holes.steps(self._demand, self._prospect)
            chosen = self._choose(steps)
            if not chosen:
                return
            begins = self._ends(steps)
            order = sorted(chosen, key=lambda r: (-r.nodes * steps[r.step].life, r.first))
            for number, rectangle in enumerate(order):
                step = steps[rectangle.step]
                fit = self._prospect.fit_s(step.life, cut=step.cut)
                if number and self._demand.takers(fit) < rectangle.nodes:
                    break
                self._ask_in_hole(step, most=rectangle.nodes, window=begins[rectangle.step] - rectangle.first)

    @staticmethod
    def _ends(steps: Sequence[Step]) -> list[int]:
        return list(accumulate(s.nodes for s in steps))

    def _choose(self, steps: tuple[Step, ...]) -> tuple[Rectangle, ...]:
        """The best cover with the slots there are; with one less where the queue brings more for it."""
        chosen = cover(steps, self._terms(self._hole_slots), self._prospect)
        crowded = len(chosen) == self._hole_slots and not self._waiting and not self.requests
        if not (crowded and self._forecast.queue_waits and self._known):
            return chosen
        quick = queue_shape(self._demand, self._most(self._nodes), self._rules, self._forecast, urgent=False)
        if quick is None:
            return chosen
        fewer = cover(steps, self._terms(self._hole_slots - 1), self._prospect)
        if _rate(fewer, steps) + quick.rate <= _rate(chosen, steps):
            return chosen
        self._ask_in_queue(quick, RequestReason.SHORT_WAIT)
        return fewer if sum(r.nodes for r in fewer) <= self._nodes else ()

    def _terms(self, rectangles: int) -> Terms:
        demand = sum(w.nodes for w in self._demand.loose)
        return Terms(
            rectangles=rectangles,
            nodes=min(self._nodes, max(demand, self._rules.fewest_nodes)),
            fewest_nodes=self._rules.fewest_nodes,
            most_nodes=self._rules.most_nodes,
            least_share=self._rules.least_share,
            price=self._price,
        )

    def _ask_in_hole(self, step: Step, *, most: int, window: int) -> None:
        """Ask for as much of a hole as work takes."""
        limit = self._most(most)
        fit = self._prospect.fit_s(step.life, cut=step.cut)
        nodes, walltime = shape_of(self._demand, limit, step.walltime_s, fit, self._rules)
        hole = self._holes.window(window, step.length)
        shape = f"{nodes} node{'s' * (nodes != 1)} for {walltime:.0f} s"
        if self._rules.preemptible:
            reason, text = RequestReason.PREEMPTIBLE, f"{shape} use {hole} until the centre needs them."
        elif nodes == window and walltime == step.walltime_s:
            reason, text = RequestReason.FILLS_WINDOW, f"{shape} fill {hole}."
        else:
            reason, text = (
                RequestReason.PART_OF_WINDOW,
                f"{shape} of {hole} {self._why_part(nodes, window, fit)}.",
            )
        share = useful_share(self._prospect, nodes, min(walltime, step.life), cut=step.cut)
        self._accept(
            nodes, walltime, fit - step.walltime_s + walltime, reason, text, hole, useful_share=share
        )
        self._holes.take(nodes, min(walltime + self._rules.start_margin_s, step.length))

    def _why_part(self, nodes: int, window: int, fit: float) -> str:
        if nodes == self._most(window) < window:
            return "are what the limits of nodes allow"
        if self._demand.takers(fit) > nodes:
            return "are the part that is best asked for on its own"
        return "are what the work at hand needs"

    def _refuse_holes(self) -> None:
        """Say of each hole that is left why it is not used."""
        if self._missed_for_s > 0:
            text = f"Requests for windows did not start lately: for {self._missed_for_s:.0f} s none is asked for."
            self._refuse(RefusalReason.WINDOWS_MISSED, text, seconds=self._missed_for_s)
            return
        for step in self._holes.steps(self._demand, self._prospect):
            hole = self._holes.window(step.nodes, step.length)
            reason, why = self._judge(step)
            self._refuse(reason, f"Not used is {hole}: {why}.", hole, nodes=step.nodes)

    def _judge(self, step: Step) -> tuple[RefusalReason, str]:
        rules = self._rules
        if not step.walltime_s:
            least = f"too short for a walltime of {rules.shortest_s:.0f} s and the margin"
            return RefusalReason.WINDOW_TOO_SHORT, least
        if step.nodes < rules.fewest_nodes:
            return RefusalReason.WINDOW_TOO_NARROW, f"the queue takes {rules.fewest_nodes} nodes at least"
        if not step.takers:
            return RefusalReason.WINDOW_UNSUITABLE, "none of the work at hand fits into it"
        share = useful_share(self._prospect, max(1, rules.fewest_nodes), step.life, cut=step.cut)
        if self._hole_slots <= 0:
            return (
                RefusalReason.ALLOCATION_LIMIT,
                "the last allocation of the site's limit is kept for urgent work",
            )
        if share >= rules.least_share:
            return RefusalReason.WINDOW_NOT_WORTH, "it would add less than a request is worth"
        return RefusalReason.WINDOW_NOT_WORTH, f"{share:.0%} of its time would be useful"

    # ---- the queue ----

    def _into_the_queue(self) -> None:
        """Keep requests waiting: one where holes are of no use, more for urgent work or where nothing is known."""
        while True:
            urgent = self._demand.urgent
            waiting = len([h for h in self._waiting if not (urgent and h.in_window)])
            waiting += sum(r.window is None for r in self.requests)
            allowed = self._rules.queued if urgent or not self._known else 1
            if waiting >= allowed or (self.requests and self._known and not urgent):
                text = f"A request waits in {_queue(self._rules.queue)} already; one is enough."
                if allowed > 1:
                    text = f"{waiting} requests wait in {_queue(self._rules.queue)} already, as many as may."
                self._refuse(RefusalReason.ALREADY_QUEUED, text, waiting=waiting, allowed=allowed)
                return
            most = self._most(self._nodes if urgent or not self._known else self._beside_windows())
            shape = queue_shape(self._demand, most, self._rules, self._forecast, urgent=urgent)
            if shape is None:
                text = (
                    "None of the work at hand fits into the largest allocation that the site's limits allow."
                )
                self._refuse(RefusalReason.WINDOW_UNSUITABLE, text, nodes=most)
                return
            reason = RequestReason.NO_WINDOW if self._known else RequestReason.WINDOWS_UNKNOWN
            self._ask_in_queue(shape, RequestReason.URGENT if urgent and self.requests else reason)
            if not self._may_ask():
                return

    def _ask_in_queue(self, shape: QueueShape, reason: RequestReason) -> None:
        why = _IN_QUEUE[reason]
        wait = f"; half of such wait less than {shape.wait_s:.0f} s" if shape.wait_s is not None else ""
        nodes = f"{shape.nodes} node{'s' * (shape.nodes != 1)} for {shape.walltime_s:.0f} s"
        text = f"{nodes} wait in {_queue(self._rules.queue)}: {why}{wait}."
        numbers = {"wait_s": shape.wait_s} if shape.wait_s is not None else {}
        fit = self._prospect.fit_s(shape.walltime_s, cut=False)
        self._accept(
            shape.nodes, shape.walltime_s, fit, reason, text, None, useful_share=shape.share, **numbers
        )

    # ---- what is left ----

    def _beside_windows(self) -> int:
        """Nodes of a request that only waits in case no window comes."""
        return max(self._rules.queue_nodes, *(j.nodes for j in self._demand.rigid), 1)

    def _most(self, nodes: int) -> int:
        """Nodes of an allocation, where there are so many."""
        return min(nodes, self._nodes, self._rules.most_nodes or nodes)

    def _accept(
        self,
        nodes: int,
        walltime: float,
        fit: float,
        reason: RequestReason,
        text: str,
        window: BackfillWindow | None,
        **numbers: float,
    ) -> None:
        """Count a request against limits and work."""
        self.requests.append(
            AllocationRequest(
                nodes=nodes,
                walltime_s=walltime,
                queue=self._rules.queue,
                reason=reason,
                sentence=text,
                window=window,
                numbers={"nodes": nodes, "walltime_s": walltime, **numbers},
            )
        )
        self._slots -= 1
        self._nodes -= nodes
        rigid = place_beside(self._demand.rigid, nodes, fit)
        self._demand.rigid = without(self._demand.rigid, rigid.jobs)
        self._demand.use(nodes - rigid.nodes, fit)

    def _refuse(
        self, reason: RefusalReason, sentence: str, window: BackfillWindow | None = None, **numbers: float
    ) -> None:
        if window is not None and window.seconds is not None:
            numbers["seconds"] = window.seconds
        self.refusals.append(Refusal(reason=reason, sentence=sentence, window=window, numbers=numbers))


_IN_QUEUE: Final = {
    RequestReason.NO_WINDOW: "no window can be used now",
    RequestReason.WINDOWS_UNKNOWN: "nothing is known of windows",
    RequestReason.URGENT: "the work is urgent, and no window takes it",
    RequestReason.SHORT_WAIT: "that brings more than the least of the windows",
}


def _rate(chosen: Sequence[Rectangle], steps: Sequence[Step]) -> float:
    """Useful nodes in the mean while the slots are in use."""
    return sum(r.useful / steps[r.step].life for r in chosen)


def _queue(queue: str | None) -> str:
    return f"queue {queue}" if queue else "the default queue"
