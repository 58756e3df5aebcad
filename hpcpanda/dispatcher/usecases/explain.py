"""Say in sentences why a task is where it is."""

from __future__ import annotations

from collections import Counter
from typing import assert_never

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.sites import EdgeRecord
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.wording import counted
from hpcpanda.domain.exchange import Explanation, LeaseInfo
from hpcpanda.domain.ledger import EventLease
from hpcpanda.domain.states import TaskState

MAX_LEASES = 1000
"""Most open leases listed."""
MAX_EDGES = 5
"""Most edges named that have no room for a job."""


async def explain_task(uow: UnitOfWork, *, task_id: int, terms: Terms, now: float) -> Explanation:
    """Why a task is where it is, and who holds its events.

    Raises:
        NotFound: there is no such task.
    """
    async with uow:
        account = await uow.accounts.get(task_id)
        leases = await uow.leases.open_of(task_id, MAX_LEASES)
        match account.state:
            case TaskState.READY | TaskState.RUNNING:
                reasons = [
                    *_held(account, leases),
                    *await _waiting(uow, account, terms, now),
                    *await _losses(uow, account),
                ]
            case TaskState.MERGING:
                reasons = [*await _merging(uow, account), *await _losses(uow, account)]
            case TaskState.DONE:
                reasons = [f"{_all(account)} in the outputs."]
            case TaskState.FINISHED:
                reasons = [f"It is finished: {account.message}.", *await _losses(uow, account)]
            case TaskState.FAILED | TaskState.ABORTED:
                reasons = [f"It is {account.state}: {account.message}"]
            case _:
                assert_never(account.state)
    return Explanation(
        task_id=task_id,
        state=account.state,
        reasons=tuple(reasons),
        leases=tuple(
            LeaseInfo(
                epoch=lease.epoch,
                edge=lease.holder,
                outstanding=len(lease.outstanding),
                expires_in_s=lease.expires - now,
            )
            for lease in leases
        ),
    )


def _held(account: Account, leases: list[EventLease]) -> list[str]:
    held: Counter[str] = Counter()
    for lease in leases:
        held[lease.holder] += len(lease.outstanding)
    return [f"{_being(count, account.unit)} leased to edge {edge}." for edge, count in sorted(held.items())]


async def _waiting(uow: UnitOfWork, account: Account, terms: Terms, now: float) -> list[str]:
    """Why ready events are not leased."""
    if not account.ready:
        return []
    reasons = [f"{_being(account.ready, account.unit)} ready, waiting for an edge to ask for work."]
    edges = await uow.edges.all()
    alive = [edge for edge in edges if now - edge.last_seen < terms.edge_alive_seconds]
    if not edges:
        reasons.append("No edge has registered yet: nothing runs until one does.")
    elif alive:
        reasons += _misfit(account, alive)
    else:
        latest = max(edges, key=lambda edge: edge.last_seen)
        ago = _duration(now - latest.last_seen)
        reasons.append(f"No edge is alive: the last heard of is {latest.name}, {ago} ago.")
    first, count = await uow.accounts.ahead_of(account)
    if first is not None:
        rank = "of higher priority" if first.priority > account.priority else "submitted earlier"
        more = f" and behind {count - 1} more" if count > 1 else ""
        reasons.append(
            f"It waits behind task {first.task_id} ({first.name}), {rank}, "
            f"which has {counted(first.ready, first.unit)} ready{more}."
        )
    return reasons


def _misfit(account: Account, alive: list[EdgeRecord]) -> list[str]:
    """Why no living edge has room for the task's jobs, as far as edges have said what they have room for."""
    rooms = [(edge.name, edge.room) for edge in alive if edge.room is not None]
    if account.job is None:
        return []
    if not rooms:
        return ["No living edge has asked for jobs yet."]
    refusals = [(name, room.refusal(account.job, container=account.in_container)) for name, room in rooms]
    if not all(refusal for _, refusal in refusals):
        return []
    listed = "; ".join(f"on edge {name} a job {refusal}" for name, refusal in refusals[:MAX_EDGES])
    more = f"; and {len(refusals) - MAX_EDGES} edges more" if len(refusals) > MAX_EDGES else ""
    return [f"No living edge that has asked for jobs has room for one: {listed}{more}."]


async def _losses(uow: UnitOfWork, account: Account) -> list[str]:
    if not account.failed:
        return []
    (first,) = await uow.failures.page(account.task_id, after=None, limit=1)
    count = (
        f"{counted(account.failed, account.unit)} failed, of at most {account.max_failed} that it may lose"
    )
    return [f"{count}; the first is {account.unit} {first.event}: {first.error}"]


async def _merging(uow: UnitOfWork, account: Account) -> list[str]:
    edges = ", ".join(await uow.leases.edges_of(account.task_id))
    count = f"{account.merged} of {account.done} finished ones are in outputs"
    return [f"{_all(account)} settled; {count}, the rest is to be merged where it was made: {edges}."]


def _being(count: int, unit: str) -> str:
    return f"{counted(count, unit)} {'is' if count == 1 else 'are'}"


def _all(account: Account) -> str:
    if account.total == 1:
        return f"Its only {account.unit} is"
    return f"All {account.total} {account.unit}s are"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
