"""Take in everything an edge has to say, in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator
from copy import copy

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.control import History
from hpcpanda.dispatcher.store.leases import LeaseKey
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.accounting import count_usage
from hpcpanda.dispatcher.usecases.brokering import learn
from hpcpanda.dispatcher.usecases.closing import judge
from hpcpanda.dispatcher.usecases.edges import recognise
from hpcpanda.dispatcher.usecases.failing import Judged, judge_failures
from hpcpanda.dispatcher.usecases.faults import take_fault
from hpcpanda.dispatcher.usecases.fencing import first_epochs
from hpcpanda.dispatcher.usecases.outputs import record_outputs
from hpcpanda.domain.errors import InvalidValue, LeaseLost
from hpcpanda.domain.exchange import CommitResult, LeaseCommit, LeaseReturn, SyncReply, SyncRequest, TaskOrder
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLease, FailedEvent, Settlement, single_events
from hpcpanda.domain.scouting import JobMeasure

MAX_PIECES = 50_000
"""Into more pieces nobody cuts a lease: what would is refused, or stays leased. More than an edge works on at once."""


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
        if not await uow.edges.heard(edge, request.instance, now):
            await recognise(uow, name=edge, instance=request.instance)
        held = set(_held_tasks(request))
        named = held | set(_mentioned_tasks(request))
        accounts = await uow.accounts.some(held) | await uow.accounts.seen(named - held)
        before = {task_id: copy(account) for task_id, account in accounts.items()}
        leases = await uow.leases.held_by(edge, _named_leases(request))
        judged = await judge_failures(
            uow, request.commits, edge=edge, accounts=accounts, leases=leases, terms=terms, now=now
        )
        batch = _Batch(accounts, leases, judged, expires=now + terms.lease_seconds, now=now)
        lost = [key for key in request.renew if not batch.renew(key)]
        results = tuple(batch.commit(update) for update in request.commits)
        for update in request.returns:
            batch.give_back(update)
        await batch.save(uow)
        rejected = await record_outputs(uow, accounts, edge=edge, reports=request.outputs, now=now)
        for task_id in accounts.keys() & (batch.touched | {o.task_id for o in request.outputs}):
            await judge(uow, accounts[task_id], now)
        freed = bool(batch.freed)
        for fault in request.faults:
            account = accounts.get(fault.task_id)
            freed |= await take_fault(uow, account, fault, edge=edge, terms=terms, now=now)
        await uow.accounts.save([a for task_id, a in accounts.items() if a != before[task_id]])
        nodes = await learn(
            uow, edge=edge, done=batch.done, failed=batch.failed, report=request.site, now=now
        )
        uow.news.commits, uow.news.done, uow.news.failed = len(results), batch.done, batch.failed
        await _note_reports(uow, edge, request, accounts, now)
        states = {task_id: account.state for task_id, account in accounts.items()}
        if missing := named - states.keys():
            states |= await uow.archive.states(missing)
        since = await first_epochs(uow, edge, accounts)
        await uow.lanes.charge(batch.used, now)  # last: all who work for the same user wait for this row
    reply = SyncReply(
        commits=results,
        lost=tuple(lost),
        tasks=tuple(
            TaskOrder(task_id=t, state=s, first_epoch=since.get(t, 1)) for t, s in sorted(states.items())
        ),
        rejected_outputs=tuple(rejected),
        nodes=nodes if nodes is not None else judged.told,
    )
    return reply, freed


async def _note_reports(
    uow: UnitOfWork, edge: str, request: SyncRequest, accounts: Container[int], now: float
) -> None:
    """What the edge does for tasks that there are, why, and what they have used."""
    reports = {a.task_id: a for a in request.activity if a.task_id in accounts}
    await uow.activity.replace(edge, reports.values(), now)
    if request.reasons is not None:
        said = {r.task_id: r for r in request.reasons if r.task_id in accounts}
        await uow.reasons.replace(edge, said.values(), now)
    if request.usage is not None:
        await count_usage(uow, edge=edge, instance=request.instance, report=request.usage, now=now)


class _Batch:
    """The commits, returns and renewals of one message, worked out in memory and written once."""

    def __init__(
        self,
        accounts: dict[int, Account],
        leases: dict[LeaseKey, EventLease],
        judged: Judged,
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
        self._judged = judged
        self._expires = expires
        self._now = now
        self._changed: set[LeaseKey] = set()
        self._renewed: set[LeaseKey] = set()
        self._failures: list[tuple[int, FailedEvent, History]] = []
        self._measured: dict[int, list[JobMeasure]] = defaultdict(list)

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
        before = self._try_again(key, before)
        lease, settlement = before.commit(update.done | lost)
        if lease.outstanding.fragments > MAX_PIECES:
            settlement = Settlement(accepted=EMPTY, new=EMPTY, refused=update.done | lost)
        if settlement.new:
            done = len(settlement.new & update.done)
            failed = len(settlement.new) - done
            core_seconds = update.core_seconds * done / max(1, len(update.done))
            account = self._accounts[update.task_id]
            account.recorded(done=done, failed=failed, core_seconds=core_seconds, now=self._now)
            self.used[account.lane_id] += core_seconds
            if account.scouts and update.measured:
                counts = settlement.new & update.done
                self._measured[update.task_id] += [m for m in update.measured if m.job in counts]
            self.done += done
            self.failed += failed
            histories, task_id = self._judged.histories, update.task_id
            self._failures += [
                (task_id, f, histories.get((task_id, e), ()))
                for e, f in failures.items()
                if e in settlement.new
            ]
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
        if before is not None:
            self._free(key, before, update.events)

    def _try_again(self, key: LeaseKey, lease: EventLease) -> EventLease:
        """Make those failed events ready again that have another chance: for this epoch they are refused."""
        again = self._judged.again.pop(key, None)
        return self._free(key, lease, single_events(again)) if again else lease

    def _free(self, key: LeaseKey, before: EventLease, events: IntervalSet) -> EventLease:
        lease, returned = before.give_back(events)
        if not returned or max(returned.fragments, lease.outstanding.fragments) > MAX_PIECES:
            return before
        self._accounts[key[0]].returned(len(returned), now=self._now)
        self.freed[key[0]] |= returned
        self._leases[key] = lease
        self._changed.add(key)
        return lease

    async def save(self, uow: UnitOfWork) -> None:
        """Write leases, failed events, ready ranges, and what scouts have used."""
        await uow.leases.save({key: self._leases[key] for key in self._changed})
        await uow.leases.save_expiry({key: self._leases[key] for key in self._renewed - self._changed})
        await uow.failures.add(self._failures)
        for task_id, events in self.freed.items():
            await uow.ready.put(task_id, events)
        for task_id, measured in self._measured.items():
            await uow.generation.note(task_id, measured)


def _held_tasks(request: SyncRequest) -> Iterator[int]:
    """Tasks of which something may change."""
    yield from (task_id for task_id, _ in request.renew)
    for updates in (request.commits, request.returns, request.outputs, request.faults):
        yield from (update.task_id for update in updates)


def _mentioned_tasks(request: SyncRequest) -> Iterator[int]:
    """Tasks that are only talked about."""
    yield from request.tasks
    yield from (reason.task_id for reason in request.reasons or ())
    yield from (report.task_id for report in request.activity)


def _named_leases(request: SyncRequest) -> Iterator[LeaseKey]:
    yield from request.renew
    yield from ((commit.task_id, commit.epoch) for commit in request.commits)
    yield from ((giving.task_id, giving.epoch) for giving in request.returns)
