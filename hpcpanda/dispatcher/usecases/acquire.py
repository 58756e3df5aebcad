"""Lease work to an edge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.generation.leasing import take_jobs
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.brokering import offered, settle, take_from_stalled
from hpcpanda.dispatcher.usecases.claiming import claimed
from hpcpanda.dispatcher.usecases.edges import recognise
from hpcpanda.dispatcher.usecases.expiry import end_overdue
from hpcpanda.dispatcher.usecases.granting import grants_of
from hpcpanda.dispatcher.usecases.reading import not_here, reads_events, take_here
from hpcpanda.domain.exchange import Capacity, Grants
from hpcpanda.domain.ledger import EventLease

SCOUT_EVENT_SECONDS = 1.0
"""Taken for the cost of an event of which nothing is known: the first lease finds out."""
WALLTIME_SHARE = 0.5
"""Part of its walltime that a job is taken to run while nothing of it is known. Taken too large, the edge asks
again sooner; taken too small, it holds jobs that others could run."""
MIN_EVENT_SECONDS = 1e-9
"""No event is taken to cost less."""
ROUNDING = 1 + 1e-12
"""Keeps 1 s from holding 9 events of 0.1 s."""
MAX_LEASES = 100
"""Most leases in one answer."""
HEARTBEAT_SECONDS = 5.0
"""An edge heard of more recently is not noted again: a request without work then writes nothing."""


@dataclass(slots=True)
class _Budget:
    """What an edge offers, as far as it is not filled yet."""

    capacity: Capacity
    core_seconds: float
    untouched: bool = True
    """Nothing was taken of it yet."""

    def choose(self, accounts: Sequence[Account]) -> list[Account]:
        """Those of the tasks, in their order, of which something would be taken if they are as they seem."""
        return [account for account, _ in replace(self).take(accounts)]

    def take(self, accounts: Sequence[Account]) -> list[tuple[Account, int]]:
        """Fill the offer from tasks, in their order: how many events or jobs of which."""
        taken = []
        for account in accounts:
            events = self.affords(account) or int(self.untouched)
            if not events and account.job is not None:
                continue
            if not events:
                break
            self.spend(account, events)
            self.untouched = False
            taken.append((account, events))
        return taken

    def affords(self, account: Account) -> int:
        """Events or jobs of a task that fit."""
        return max(0, min(account.ready, int(self.core_seconds / self._cost(account) * ROUNDING)))

    def spend(self, account: Account, events: int) -> None:
        """Take off what so many events or jobs need."""
        self.core_seconds -= events * self._cost(account)

    def _cost(self, account: Account) -> float:
        """Core-seconds that an event or job takes of the offer.

        That of a job is at most its cores for all of the time offered: so the cores are filled once, however long
        the jobs.
        """
        known = account.event_seconds or account.guess
        if account.job is None:
            return max(known or SCOUT_EVENT_SECONDS, MIN_EVENT_SECONDS)
        job = account.job
        wholly = job.core_seconds(self._node_cores)
        most = wholly * self.capacity.seconds / job.walltime_s
        return max(min(known or wholly * WALLTIME_SHARE, most) * job.clones, MIN_EVENT_SECONDS)

    @property
    def _node_cores(self) -> int:
        assert self.capacity.room is not None, "no job is a candidate without a room"
        return self.capacity.room.cores


async def acquire_work(uow: UnitOfWork, *, edge: str, capacity: Capacity, terms: Terms, now: float) -> Grants:
    """Lease ready events and jobs for as many core-seconds as the edge offers, at least one if there are any: in the
    order of :func:`hpcpanda.brokerage.order.rank`, as far as brokerage lets the site have them.

    Jobs are leased only where one fits the edge's room. A task whose jobs do not fit, or need more cores than are left
    of the offer, is passed over. Jobs are enough to fill the cores once, even if they outlast the offer. A job on
    several nodes counts as all their cores: where fewer are offered, it is leased alone, if it comes first.

    Raises:
        NotFound: the edge is not registered.
        EdgeNameTaken: another instance has taken its name.
    """
    async with uow:
        await _notice(uow, edge, capacity, now)
        holds_none = True
        while await end_overdue(uow, now):
            holds_none = False
        budget = _Budget(capacity, capacity.cores * capacity.seconds)
        granted: list[tuple[Account, EventLease]] = []
        offer = await offered(uow, edge=edge, capacity=capacity, terms=terms, now=now)
        hungry = capacity.above is None  # an edge that asks for what is urgent alone has work
        if not offer.accounts and holds_none and hungry and await take_from_stalled(uow, offer, now=now):
            holds_none = False
            offer = await offered(uow, edge=edge, capacity=capacity, terms=terms, now=now)
        candidates = offer.accounts[:MAX_LEASES]
        async for held in claimed(uow, candidates, budget.choose, holds_none=holds_none):
            chosen = budget.take(held)
            leases = await _grant(uow, chosen, edge=edge, expires=now + terms.lease_seconds, now=now)
            for account, events in chosen:
                lease = leases.get(account.task_id)
                budget.spend(account, (len(lease.granted) if lease else 0) - events)
                if lease is None:
                    offer.refused[account.task_id] = not_here(account, edge)
                    continue
                granted.append((account, lease))
                uow.news.leases += 1
                uow.news.leased += len(lease.granted)
            budget.untouched = not granted
        await uow.accounts.save([account for account, _ in granted])
        filled = 1.0 - budget.core_seconds / (capacity.cores * capacity.seconds)
        if granted or hungry:
            tasks = [account.task_id for account, _ in granted]
            await settle(uow, offer, granted=tasks, filled=filled, now=now)
        return Grants(leases=await grants_of(uow, granted, expires_in_s=terms.lease_seconds))


async def _notice(uow: UnitOfWork, edge: str, capacity: Capacity, now: float) -> None:
    """Note that the edge has asked, and what it has room for: what is known already is not written again."""
    record = await recognise(uow, name=edge, instance=capacity.instance)
    room = capacity.room.covering(record.room) if capacity.room is not None else record.room
    if room != record.room:
        await uow.edges.seen(edge, now, room=room)
    elif now - record.last_seen > HEARTBEAT_SECONDS:
        await uow.edges.seen(edge, now)


async def _grant(
    uow: UnitOfWork, chosen: Sequence[tuple[Account, int]], *, edge: str, expires: float, now: float
) -> dict[int, EventLease]:
    """Leases of ready events or jobs of tasks, at most so many of each; none of a task when the files of none of its
    events are at the site."""
    plain = {a.task_id: events for a, events in chosen if not (a.is_split or reads_events(a))}
    taken = await uow.ready.take(plain)
    leases: dict[int, EventLease] = {}
    for account, events in chosen:
        task_id = account.task_id
        if task_id not in plain:
            take = take_jobs if account.is_split else take_here
            taken[task_id] = await take(uow, account, events, site=edge)
            if not taken[task_id]:
                continue
        part = taken.get(task_id)
        assert part, f"task {task_id} counts ready events that are not there"
        epoch = account.granted(len(part), now=now)
        leases[task_id] = EventLease(
            epoch=epoch, holder=edge, granted=part, outstanding=part, expires=expires
        )
    await uow.leases.add(leases.items())
    return leases
