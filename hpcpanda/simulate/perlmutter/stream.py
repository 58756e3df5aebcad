"""Ours in the Perlmutter scenario: one task of events, streamed through as many allocations as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import EventLedger, FailedEvent
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import ProcessPayload
from hpcpanda.domain.site import (
    AllocationSettings,
    LimitSettings,
    NodeSettings,
    QueueLimits,
    SchedulerSettings,
    Site,
)
from hpcpanda.domain.task import RangePolicy, Resources, TaskSpec
from hpcpanda.packing.requests import LooseWork, RequestRules, WorkAtHand, plan_requests
from hpcpanda.simulate.perlmutter.jobs import HOUR, Costs
from hpcpanda.simulate.perlmutter.node_life import LifeAccount, NodeLife, NodeShape, StreamTask
from hpcpanda.simulate.perlmutter.published import PUBLISHED
from hpcpanda.simulate.perlmutter.results import Bias, CoreHours, Streaming
from hpcpanda.simulate.trace import Floats

_MOST_ALLOCATIONS: Final = 4
"""A task that needs so many times the allocations that its work fills does not get on."""


def perlmutter_site(pilots: int = PUBLISHED.pilots) -> Site:
    """The site as ``site-configs/perlmutter-cpu.toml`` has it, with the published walltime and occupation of a node.

    Memory leaves so many cores of a node to ePIC, with pilots and with us.
    """
    return Site(
        name="perlmutter-cpu",
        spool="/pscratch/hpcpanda",
        nodes=NodeSettings(count=3072, cores=pilots, memory_mb=480_000),
        scheduler=SchedulerSettings(executor="slurm", qos="regular", constraint="cpu"),
        allocation=AllocationSettings(walltime_s=PUBLISHED.wall * HOUR, margin_s=120.0, grace_s=20.0),
        limits=LimitSettings(allocations=PUBLISHED.allocations, nodes=3072),
        queue=QueueLimits(max_walltime_s=172_800.0),
    )


def asked_walltime(site: Site) -> float:
    """The walltime that the planner asks for a node, with nothing known of holes and no end of work.

    Raises:
        InvalidValue: it asks for nothing at this site.
    """
    work = WorkAtHand(loose=(LooseWork(nodes=site.node_limit),))
    plan = plan_requests(None, replace(RequestRules.of_site(site), most_nodes=1), work)
    if not plan.requests:
        raise InvalidValue("site", "; ".join(plan.explain()))
    return plan.requests[0].walltime_s


def event_task(events: int, *, range_s: float, timeout_s: float) -> TaskSpec:
    """A production task of so many events: a long-lived simulation program a core, fed ranges of so many seconds, none
    of which may take longer than the time-out."""
    return TaskSpec(
        name="epic-production",
        payload=ProcessPayload(command=("simulate-epic",)),
        output=Output(file="epic.zip", format=OutputFormat.ZIP),
        events=events,
        resources=Resources(range_timeout_s=timeout_s),
        ranges=RangePolicy(target_seconds=range_s),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRun:
    """What came of it."""

    accounts: tuple[LifeAccount, ...]
    core_hours: CoreHours
    lost_nodes: int
    done: int
    """Events finished."""
    failed: tuple[FailedEvent, ...]
    bias: Bias
    streaming: Streaming


def run_stream(
    costs: Costs,
    *,
    site: Site,
    startup_s: float,
    spec: TaskSpec,
    lost_at: Callable[[int], float],
    progress: Callable[[float], None],
) -> StreamRun:
    """Run allocations one after the other until every event of the task is finished or set aside.

    (In reality they overlap. What one gives back goes to the next here, there to one that begins later: the accounts
    do not differ.)

    Args:
        costs: core-seconds of each event of the task.
        site: where.
        startup_s: of each allocation.
        spec: the task.
        lost_at: when allocation i loses its node; infinity for never.
        progress: is told the share done.
    """
    reach = np.concatenate(([0.0], np.cumsum(costs, dtype=np.float64)))
    ledger = EventLedger.over(IntervalSet.span(0, len(costs)))
    task = StreamTask(spec=spec, ledger=ledger, reach=reach)
    shape = NodeShape(site=site, walltime_s=asked_walltime(site), startup_s=startup_s)
    accounts: list[LifeAccount] = []
    midway: Bias | None = None
    for account in _lives(task, shape, lost_at):
        accounts.append(account)
        if midway is None and len(ledger.done) * 2 >= len(costs):
            midway = _so_far(costs, ledger)
        progress((len(ledger.done) + len(ledger.failed)) / len(costs))
    lost = [a.lost_node for a in accounts if a.lost_node]
    return StreamRun(
        accounts=tuple(accounts),
        core_hours=_sum(accounts),
        lost_nodes=len(lost),
        done=len(ledger.done),
        failed=tuple(ledger.failed[e] for e in sorted(ledger.failed)),
        bias=Bias.between(costs, _of(costs, ledger.done)),
        streaming=Streaming(
            tasks_events=len(costs),
            leases=sum(a.leases for a in accounts),
            given_back=sum(a.given_back for a in accounts),
            midway=midway or _so_far(costs, ledger),
            core_minutes_a_lost_node=float(np.mean(lost)) / site.nodes.cores / 60.0 if lost else 0.0,
            longest_finished_s=float(_of(costs, ledger.done).max()),
        ),
    )


def _lives(task: StreamTask, shape: NodeShape, lost_at: Callable[[int], float]) -> Iterator[LifeAccount]:
    """One allocation after the other, until nothing is left of the task or it does not get on."""
    known: float | None = None
    most = _MOST_ALLOCATIONS * (2 + int(task.reach[-1] / (shape.site.nodes.cores * shape.walltime_s)))
    for number in range(most):
        if task.ledger.finished:
            return
        life = NodeLife(task, shape, holder=f"a{number}", lost_at=lost_at(number), event_seconds=known)
        account = life.run()
        known = account.event_seconds
        yield account


def _of(costs: Costs, events: IntervalSet) -> Costs:
    """Costs of these events."""
    return np.concatenate([costs[r.first : r.last] for r in events.ranges()])


def _so_far(costs: Costs, ledger: EventLedger) -> Bias:
    """Events leased so far, all of those in front of the last done, against those done."""
    return Bias.between(costs[: ledger.done.bounds[-1]], _of(costs, ledger.done))


def _sum(accounts: list[LifeAccount]) -> CoreHours:
    def hours(seconds: Floats | list[float]) -> float:
        return float(np.sum(seconds)) / HOUR

    return CoreHours(
        useful=hours([a.useful for a in accounts]),
        lost_wall=hours([a.lost_drain for a in accounts]),
        lost_node=hours([a.lost_node for a in accounts]),
        lost_timeout=hours([a.lost_timeout for a in accounts]),
        startup=hours([a.startup for a in accounts]),
        idle=hours([a.idle for a in accounts]),
    )
