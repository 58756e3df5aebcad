"""Take in everything an edge has to say, in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.leases import LeaseKey
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.brokering import learn
from hpcpanda.dispatcher.usecases.closing import close, judge
from hpcpanda.dispatcher.usecases.edges import recognise
from hpcpanda.dispatcher.usecases.outputs import record_outputs
from hpcpanda.domain.errors import InvalidValue, LeaseLost
from hpcpanda.domain.exchange import (
    CommitResult,
    LeaseCommit,
    LeaseReturn,
    SyncReply,
    SyncRequest,
    TaskFault,
    TaskOrder,
)
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import ERROR_TEXT_LIMIT, EventLease, FailedEvent, single_events
from hpcpanda.domain.states import TaskEvent


async def sync_edge(
    uow: UnitOfWork, *, edge: str, request: SyncRequest, terms: Terms, now: float
) -> tuple[SyncReply, bool]:
    """Renew, commit, return and report, as one change; sent again, it changes nothing.

    Gives the reply, and whether events became ready.

    Raises:
        InvalidValue: a commit reports an event both done and failed.
        NotFound: the edge is not registered.
        EdgeNameTaken: another instance has taken its name.
    """
    async with uow:
        await recognise(uow, name=edge, instance=request.instance)
        await uow.edges.seen(edge, now)
        named = set(_named_tasks(request))
        accounts = await uow.accounts.some(named)
        leases = await uow.leases.held_by(edge, _named_leases(request))
        batch = _Batch(accounts, leases, expires=now + terms.lease_seconds, now=now)
        lost = [key for key in request.renew if not batch.renew(key)]
        results = tuple(batch.commit(update) for update in request.commits)
        for update in request.returns:
            batch.give_back(update)
        await batch.save(uow)
        rejected = await record_outputs(uow, accounts, edge=edge, reports=request.outputs)
        for task_id in accounts.keys() & (batch.touched | {o.task_id for o in request.outputs}):
            await judge(uow, accounts[task_id], now)
        for fault in request.faults:
            await _fault(uow, accounts.get(fault.task_id), fault, edge=edge, now=now)
        await uow.accounts.save(accounts.values())
        await learn(uow, edge=edge, done=batch.done, failed=batch.failed, report=request.site, now=now)
        await uow.lanes.charge(batch.used, now)
        reports = {a.task_id: a for a in request.activity if a.task_id in accounts}
        await uow.activity.replace(edge, reports.values(), now)
        if request.reasons is not None:
            said = {r.task_id: r for r in request.reasons if r.task_id in accounts}
            await uow.reasons.replace(edge, said.values(), now)
        states = {task_id: account.state for task_id, account in accounts.items()}
        if missing := named - states.keys():
            states |= await uow.archive.states(missing)
    reply = SyncReply(
        commits=results,
        lost=tuple(lost),
        tasks=tuple(TaskOrder(task_id=t, state=s) for t, s in sorted(states.items())),
        rejected_outputs=tuple(rejected),
    )
    return reply, bool(batch.freed)


class _Batch:
    """The commits, returns and renewals of one message, worked out in memory and written once."""

    def __init__(
        self,
        accounts: dict[int, Account],
        leases: dict[LeaseKey, EventLease],
        *,
        expires: float,
        now: float,
    ) -> None:
        self.touched: set[int] = set()
        """Tasks of which events were recorded."""
        self.freed: dict[int, IntervalSet] = defaultdict(lambda: EMPTY)
        """Events that became ready, by task."""
        self.done = self.failed = 0
        """Events recorded."""
        self.used: dict[int, float] = defaultdict(float)
        """Core-seconds that they took, by lane."""
        self._accounts = accounts
        self._leases = leases
        self._expires = expires
        self._now = now
        self._changed: set[LeaseKey] = set()
        self._renewed: set[LeaseKey] = set()
        self._failures: list[tuple[int, FailedEvent]] = []

    def renew(self, key: LeaseKey) -> bool:
        """Put a lease's end off; gives False when it has ended."""
        lease = self._leases.get(key)
        if lease is None:
            return False
        try:
            self._leases[key] = lease.renew(self._expires)
        except LeaseLost:
            return False
        self._renewed.add(key)
        return True

    def commit(self, update: LeaseCommit) -> CommitResult:
        """Record finished events, as far as the epoch still holds them."""
        failures = {f.event: f for f in update.failed}
        lost = single_events(failures)
        if lost & update.done:
            raise InvalidValue("failed", f"events {lost & update.done} are reported done and failed at once")
        key = (update.task_id, update.epoch)
        before = self._leases.get(key)
        if before is None:
            return CommitResult(
                task_id=update.task_id, epoch=update.epoch, accepted=EMPTY, refused=update.done | lost
            )
        lease, settlement = before.commit(update.done | lost)
        if settlement.new:
            done = len(settlement.new & update.done)
            failed = len(settlement.new) - done
            core_seconds = update.core_seconds * done / max(1, len(update.done))
            account = self._accounts[update.task_id]
            account.recorded(done=done, failed=failed, core_seconds=core_seconds, now=self._now)
            self.used[account.lane_id] += core_seconds
            self.done += done
            self.failed += failed
            self._failures += [(update.task_id, f) for e, f in failures.items() if e in settlement.new]
            self._leases[key] = lease
            self._changed.add(key)
            self.touched.add(update.task_id)
        return CommitResult(
            task_id=update.task_id,
            epoch=update.epoch,
            accepted=settlement.accepted,
            refused=settlement.refused,
        )

    def give_back(self, update: LeaseReturn) -> None:
        """Make unprocessed events ready again, as far as the epoch still holds them."""
        key = (update.task_id, update.epoch)
        before = self._leases.get(key)
        if before is None:
            return
        lease, returned = before.give_back(update.events)
        if returned:
            self._accounts[update.task_id].returned(len(returned), now=self._now)
            self.freed[update.task_id] |= returned
            self._leases[key] = lease
            self._changed.add(key)

    async def save(self, uow: UnitOfWork) -> None:
        """Write leases, failed events and ready ranges."""
        await uow.leases.save({key: self._leases[key] for key in self._changed})
        await uow.leases.save_expiry({key: self._leases[key] for key in self._renewed - self._changed})
        await uow.failures.add(self._failures)
        for task_id, events in self.freed.items():
            await uow.ready.put(task_id, events)


async def _fault(
    uow: UnitOfWork, account: Account | None, fault: TaskFault, *, edge: str, now: float
) -> None:
    """Fail a task that cannot be run, on the word of an edge that was given some of it."""
    if account is None or account.state.final or edge not in await uow.leases.edges_of(account.task_id):
        return
    message = f"edge {edge} cannot run it: {fault.error[:ERROR_TEXT_LIMIT]}"
    account.take(TaskEvent.FAIL, now=now, message=message)
    await close(uow, account)


def _named_tasks(request: SyncRequest) -> Iterator[int]:
    yield from request.tasks
    yield from (reason.task_id for reason in request.reasons or ())
    yield from (task_id for task_id, _ in request.renew)
    for updates in (request.commits, request.returns, request.outputs, request.faults, request.activity):
        yield from (update.task_id for update in updates)


def _named_leases(request: SyncRequest) -> Iterator[LeaseKey]:
    yield from request.renew
    yield from ((commit.task_id, commit.epoch) for commit in request.commits)
    yield from ((giving.task_id, giving.epoch) for giving in request.returns)
