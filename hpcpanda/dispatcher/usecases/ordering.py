"""Put the tasks that wait in order, for the site that asks."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hpcpanda.brokerage.broker import SiteState
from hpcpanda.brokerage.fairness import HALF_LIVES, HOUR, Usage
from hpcpanda.brokerage.matching import Demand, refusals
from hpcpanda.brokerage.order import Ranked, Waiting, rank
from hpcpanda.brokerage.shares import ShareTree
from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.lanes import Lane
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.exchange import Capacity

LANES_AT_ONCE = 8
"""Lanes whose first tasks are looked up by one statement."""
MAX_LOOKS = 8
"""Most such statements for one request."""
ENOUGH = 100
"""So many candidates are enough for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A task in its place in the order."""

    account: Account
    ranked: Ranked
    lane: Lane


async def in_order(
    uow: UnitOfWork,
    *,
    tree: ShareTree,
    now: float,
    site: SiteState | None = None,
    capacity: Capacity | None = None,
    also: Account | None = None,
) -> list[Candidate]:
    """The tasks of which the site may have some, first to be served first; at most some hundreds.

    The lanes are put in order by the most that any of their tasks could have; of the first ones the tasks that may come
    first are looked up. So the cost grows with users, not with tasks.

    Args:
        uow: the transaction.
        tree: how computing is shared.
        now: Unix seconds.
        site: the one that asks; anyone when not said.
        capacity: what it asks for; anything when not said.
        also: a task that is put in its place, however far behind.
    """
    waiting = await uow.lanes.waiting()
    lanes = {lane.lane_id: lane for lane in waiting if _may(lane, site) and _urgent_enough(lane, capacity)}
    if capacity is not None and capacity.task_id is not None:
        only = {account.lane_id for account in (await uow.accounts.seen([capacity.task_id])).values()}
        lanes = {lane_id: lane for lane_id, lane in lanes.items() if lane_id in only}
    if not lanes:
        return []
    name = site.traits.name if site is not None else None
    usage = await usage_of(uow, waiting, tree, now=now)
    shares = {tree.leaf_of(owner=lane.owner, group=lane.group) for lane in waiting}
    ordered = functools.partial(rank, usage=usage, tree=tree, now=now, site=name, others=shares)
    first = ordered([_first(lane) for lane in lanes.values()])
    found = await _candidates(uow, [lanes[one.task.task_id] for one in first], capacity, now=now)
    if also is not None and also.lane_id in lanes:
        found[also.task_id] = also
    ranked = ordered([waiting_of(account, lanes[account.lane_id]) for account in found.values()])
    return [
        Candidate(account=account, ranked=one, lane=lanes[account.lane_id])
        for one in ranked
        for account in (found[one.task.task_id],)
    ]


async def _candidates(
    uow: UnitOfWork, lanes: Sequence[Lane], capacity: Capacity | None, *, now: float
) -> dict[int, Account]:
    """The tasks that may come first, of lanes in their order; some lanes at once, until there are enough."""
    found: dict[int, Account] = {}
    for start in range(0, min(len(lanes), LANES_AT_ONCE * MAX_LOOKS), LANES_AT_ONCE):
        portion = lanes[start : start + LANES_AT_ONCE]
        each = max(LANES_AT_ONCE, ENOUGH // len(portion))
        accounts = await uow.lanes.candidates(portion, capacity, each=each, long_before=now - HOUR)
        found |= {account.task_id: account for account in accounts}
        if len(found) >= ENOUGH:
            break
    return found


async def usage_of(uow: UnitOfWork, lanes: Collection[Lane], tree: ShareTree, *, now: float) -> Usage:
    """What has been used by share and user; not looked up when nothing depends on it."""
    shares = {tree.leaf_of(owner=lane.owner, group=lane.group) for lane in lanes}
    quota = tree.plan.quota
    if len(shares) < 2 and not any(quota.of(lane.owner) for lane in lanes):
        return Usage()
    current = int(now // HOUR)
    hours: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    users: dict[str, float] = defaultdict(float)
    for owner, group, hour, amount in await uow.lanes.used(_oldest(tree, current)):
        hours[tree.leaf_of(owner=owner, group=group)][hour] += amount
        if hour > current - 24:
            users[owner] += amount
    in_work: dict[str, float] = defaultdict(float)
    for owner, group, amount in await uow.lanes.in_work():
        in_work[tree.leaf_of(owner=owner, group=group)] += amount
        users[owner] += amount
    return Usage(hours=hours, in_work=in_work, users=users)


async def forget_usage(uow: UnitOfWork, *, tree: ShareTree, now: float) -> None:
    """Drop what was used so long ago that nothing depends on it."""
    async with uow:
        await uow.lanes.forget(_oldest(tree, int(now // HOUR)))


def waiting_of(account: Account, lane: Lane) -> Waiting:
    """A task as the order sees it."""
    rate = account.rate
    return Waiting(
        task_id=account.task_id,
        owner=account.owner,
        group=lane.group,
        priority=account.priority,
        served=account.served,
        deadline=account.deadline,
        needs_s=(account.ready + account.leased) / rate if rate > 0 else 0.0,
        done=account.done,
        failed=account.failed,
    )


def place_of(candidates: Sequence[Candidate], task_id: int) -> int | None:
    """How many come before a task; None when it is not among them."""
    return next((place for place, one in enumerate(candidates) if one.account.task_id == task_id), None)


def _oldest(tree: ShareTree, current: int) -> int:
    """The first hour of which use counts."""
    return current - max(24, math.ceil(HALF_LIVES * tree.plan.half_life_h) + 1)


def _first(lane: Lane) -> Waiting:
    """Better placed than any task of the lane can be; its number is the lane's."""
    urgent = 0.0 if lane.nearest is not None else None
    return Waiting(
        task_id=lane.lane_id,
        owner=lane.owner,
        group=lane.group,
        priority=lane.highest,
        served=lane.oldest,
        deadline=urgent,
    )


def _urgent_enough(lane: Lane, capacity: Capacity | None) -> bool:
    """Whether the lane has a task of as high a priority as is asked for."""
    return capacity is None or capacity.above is None or lane.highest > capacity.above


def _may(lane: Lane, site: SiteState | None) -> bool:
    """Whether the site may have tasks of the lane; rooms for jobs are judged task by task."""
    return site is None or next(refusals(Demand(requirements=lane.requirements), site.traits), None) is None
