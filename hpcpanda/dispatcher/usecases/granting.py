"""What an edge is told with the work that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.generation.leasing import told_slices
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.fencing import first_epochs
from hpcpanda.dispatcher.usecases.reading import reads_events, with_files
from hpcpanda.domain.exchange import LeaseGrant
from hpcpanda.domain.ledger import EventLease
from hpcpanda.domain.splitting import JobSlice
from hpcpanda.domain.task import TaskSpec


def spec_now(account: Account, spec: TaskSpec) -> TaskSpec:
    """What a task is now: its specification with what was changed since it was submitted."""
    changes: dict[str, Any] = {}
    if account.priority != spec.priority:
        changes["priority"] = account.priority
    deadline = spec.deadline.timestamp() if spec.deadline is not None else None
    if account.deadline != deadline:
        unix = account.deadline
        changes["deadline"] = datetime.fromtimestamp(unix, UTC) if unix is not None else None
    if account.tries > 1:
        changes["output"] = spec.output.of_try(account.tries)
    if account.job is not None and account.job != spec.job_request:
        changes["job"] = account.job
    if account.job is None and (account.more_memory > 1.0 or account.more_time > 1.0):
        changes["resources"] = spec.resources.times(memory=account.more_memory, time=account.more_time)
    return replace(spec, **changes) if changes else spec


async def grants_of(
    uow: UnitOfWork, granted: Sequence[tuple[Account, EventLease]], *, expires_in_s: float
) -> tuple[LeaseGrant, ...]:
    """The grants of new leases, each with what its task is now: the newest that an edge is told of a task counts for
    all that it holds of it."""
    specs = await uow.accounts.specs([account.task_id for account, _ in granted])
    slices: dict[int, tuple[JobSlice, ...]] = {}
    for account, lease in granted:
        spec = specs[account.task_id]
        if account.is_split:
            told = await told_slices(uow, account, spec, lease.granted, site=lease.holder)
            specs[account.task_id], slices[account.task_id] = told
        elif reads_events(account):
            specs[account.task_id] = await with_files(uow, spec, account, lease.granted, site=lease.holder)
    since: dict[int, int] = {}
    for edge in {lease.holder for _, lease in granted}:
        since |= await first_epochs(uow, edge, {a.task_id: a for a, lease in granted if lease.holder == edge})
    return tuple(
        LeaseGrant(
            task_id=account.task_id,
            epoch=lease.epoch,
            events=lease.granted,
            spec=spec_now(account, specs[account.task_id]),
            expires_in_s=expires_in_s,
            event_seconds=account.event_seconds,
            slices=slices.get(account.task_id, ()),
            first_epoch=since[account.task_id],
        )
        for account, lease in granted
    )
