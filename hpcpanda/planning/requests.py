"""Which shapes new allocations could have now: what windows, limits and what was learnt suggest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hpcpanda.domain.why import Why
from hpcpanda.packing.requests import (
    AllocationRequest,
    Held,
    RefusalReason,
    RequestReason,
    RequestRules,
    WorkAtHand,
    plan_requests,
)
from hpcpanda.planning.actions import NewAllocation, Reason
from hpcpanda.planning.situation import Situation


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """An allocation that could be asked for."""

    nodes: int
    """At most."""
    fewest_nodes: int
    walltime_s: float
    useful_s: float
    """Time in which work can be done: behind the start-up, before the margin."""
    because: Why
    in_window: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Allocations that could be asked for, all of them together, and why there are no more."""

    shapes: tuple[Shape, ...] = ()
    refusals: tuple[Why, ...] = ()

    def refused(self, reason: RefusalReason) -> bool:
        """Whether something was refused for that reason."""
        return any(why.code == reason for why in self.refusals)


def startup_s(s: Situation) -> float:
    """The start-up to be counted with, seconds."""
    return s.forecast.startup_within(s.site.allocation.walltime_s - s.site.allocation.margin_s)


def ask(s: Situation, work: WorkAtHand, planned: Iterable[NewAllocation] = ()) -> Asked:
    """Allocations that could be asked for now besides those planned already."""
    if s.now < s.submit_not_before:
        left = s.submit_not_before - s.now
        text = f"The batch system refused the last submission; the next is in {left:.0f} s at the earliest."
        return Asked(refusals=(_why(Reason.SUBMISSION_FAILING, text, seconds=left),))
    planned, limit = tuple(planned), s.site.limits.allocations
    if (work.loose or work.rigid) and len(s.allocations) + len(planned) >= limit:
        text = f"All {limit} allocations of the site's limit are in use."
        return Asked(refusals=(_why(RefusalReason.ALLOCATION_LIMIT, text, limit=limit),))
    rules = RequestRules.of_site(s.site, windows_known=s.windows is not None)
    margin = s.site.allocation.margin_s
    held = _held(s, margin)
    held += [
        Held(nodes=p.nodes, seconds=p.walltime_s, queue=rules.queue, queued=True, in_window=p.in_window)
        for p in planned
    ]
    missed_for_s = max(0.0, s.windows_not_before - s.now)
    found = plan_requests(s.windows, rules, work, held, s.forecast, missed_for_s=missed_for_s)
    prospect = rules.prospect(s.forecast)
    return Asked(
        shapes=tuple(
            Shape(
                nodes=r.nodes,
                fewest_nodes=rules.fewest_nodes,
                walltime_s=r.walltime_s,
                useful_s=prospect.fit_s(_life(r), cut=_life(r) < r.walltime_s),
                because=_because(r),
                in_window=r.window is not None,
            )
            for r in found.requests
        ),
        refusals=tuple(r.why for r in found.refusals),
    )


def _why(code: str, sentence: str, **numbers: float) -> Why:
    return Why(code=str(code), sentence=sentence, numbers=numbers)


def _held(s: Situation, margin: float) -> list[Held]:
    """All allocations; of those that run, and whose nodes no window has, their nodes alone matter."""
    running: dict[int, Held] = {}
    held: list[Held] = []
    for a in s.allocations:
        unseen = a.since is not None and s.windows_seen is not None and a.since > s.windows_seen
        if a.running and not unseen:
            alike = running.get(a.nodes)
            if alike is None:
                alike = running[a.nodes] = Held(nodes=a.nodes, seconds=0.0, queue=s.site.scheduler.queue)
            held.append(alike)
            continue
        held.append(
            Held(
                nodes=a.nodes,
                seconds=max(0.0, a.seconds_left + margin),
                queue=s.site.scheduler.queue,
                queued=not a.running,
                in_window=a.in_window,
                unseen=a.running,
            )
        )
    return held


def _life(request: AllocationRequest) -> float:
    """Seconds until the allocation has ended for certain."""
    return (
        min(request.walltime_s, request.window.length) if request.window is not None else request.walltime_s
    )


def _because(request: AllocationRequest) -> Why:
    """The reason in words that go behind a shape, which may yet become smaller."""
    if request.reason is RequestReason.PREEMPTIBLE:
        text = f"uses {request.window} until the centre needs it"
    elif request.window is not None:
        text = f"fits into {request.window}"
    else:
        text = _IN_QUEUE[request.reason]
    return Why(code=request.reason.value, sentence=text, numbers=request.numbers)


_IN_QUEUE = {
    RequestReason.NO_WINDOW: "no window can be used now: it waits in the queue",
    RequestReason.WINDOWS_UNKNOWN: "nothing is known of windows: the walltime of the site file",
    RequestReason.URGENT: "the work is urgent, and no window takes it: it waits in the queue",
    RequestReason.SHORT_WAIT: "the queue brings more than the least of the windows: it waits there",
}
