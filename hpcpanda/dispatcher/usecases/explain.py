"""Say in sentences why a task is where it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import assert_never

from hpcpanda.brokerage.matching import SiteTraits
from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.chains.saying import growth, unread
from hpcpanda.dispatcher.generation.saying import scouting
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.brokering import FOR_GOOD, MAX_SITES, Placements, placements
from hpcpanda.dispatcher.usecases.ordering import Candidate, in_order, place_of
from hpcpanda.dispatcher.wording import counted
from hpcpanda.domain.ledger import EventLease
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task_views import Explanation, LeaseInfo
from hpcpanda.domain.why import Why

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
        found = await uow.accounts.some((task_id,))
        if task_id not in found:
            return (await uow.archive.details(task_id)).explanation
        return await explain_account(uow, found[task_id], terms=terms, now=now)


async def explain_account(uow: UnitOfWork, account: Account, *, terms: Terms, now: float) -> Explanation:
    """The same, within a transaction, of a task that was not put away."""
    task_id = account.task_id
    leases = await uow.leases.open_of(task_id, MAX_LEASES)
    edges = await uow.reasons.of_task(task_id, since=now - terms.edge_alive_seconds, now=now)
    brokerage = await placements(uow, account, terms=terms, now=now)
    order: Why | None = None
    match account.state:
        case TaskState.PENDING | TaskState.READY | TaskState.SCOUTING | TaskState.RUNNING:
            reasons = [*await scouting(uow, account), *await growth(uow, account), *_held(account, leases)]
            reasons += await _waiting(uow, account, brokerage, now)
            if account.ready:
                candidates = await in_order(uow, tree=terms.tree, now=now, also=account)
                reasons += _behind(candidates, account)
                place = place_of(candidates, task_id)
                order = candidates[place].ranked.why() if place is not None else None
            reasons += await _losses(uow, account)
        case TaskState.PAUSED:
            reasons = [*_paused(account), *await growth(uow, account), *_held(account, leases)]
            reasons += await _losses(uow, account)
        case TaskState.MERGING:
            reasons = [*await _merging(uow, account), *await _losses(uow, account)]
        case TaskState.DONE:
            reasons = [f"{_all(account)} in the outputs.", *await unread(uow, account)]
        case TaskState.FINISHED:
            reasons = [f"It is finished: {account.message}.", *await _losses(uow, account)]
            reasons += await unread(uow, account)
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
        edges=edges if not account.state.final else (),
        brokerage=brokerage.reasons,
        order=order,
    )


def _held(account: Account, leases: list[EventLease]) -> list[str]:
    held: Counter[str] = Counter()
    for lease in leases:
        held[lease.holder] += len(lease.outstanding)
    return [f"{_being(count, account.unit)} leased to edge {edge}." for edge, count in sorted(held.items())]


def _paused(account: Account) -> list[str]:
    left = f"{counted(account.held, account.unit)} not handed out"
    return [
        f"It is {account.message}, with {left}: `hpcpanda task resume {account.task_id}` goes on with it."
    ]


async def _waiting(uow: UnitOfWork, account: Account, brokerage: Placements, now: float) -> list[str]:
    """Why ready events are not leased."""
    if not account.ready:
        return []
    reasons = [f"{_being(account.ready, account.unit)} ready, waiting for an edge to ask for work."]
    if brokerage.alive:
        return [*reasons, *_misfit(account, brokerage.alive), *_not_allowed(brokerage)]
    latest = await uow.edges.last_heard()
    if latest is None:
        return [*reasons, "No edge has registered yet: nothing runs until one does."]
    ago = _duration(now - latest.last_seen)
    return [*reasons, f"No edge is alive: the last heard of is {latest.name}, {ago} ago."]


def _behind(candidates: Sequence[Candidate], account: Account) -> list[str]:
    """What is served before the task."""
    first, place = candidates[0], place_of(candidates, account.task_id)
    if not place:
        return []
    own, head = candidates[place], first.account
    if first.ranked.share != own.ranked.share:
        rank = f"whose share {first.ranked.share} has had less of its part"
    elif head.priority > account.priority:
        rank = "of higher priority"
    elif first.ranked.points.total > own.ranked.points.total:
        rank = "which has more points in the order"
    else:
        rank = "submitted earlier"
    more = f" and behind {place - 1} more" if place > 1 else ""
    which = f"which has {counted(head.ready, head.unit)} ready{more}"
    return [f"It waits behind task {head.task_id} ({head.name}), {rank}, {which}."]


def _not_allowed(brokerage: Placements) -> list[str]:
    """That no living edge may have it, when that is so for other reasons than room."""
    refusals = {r.edge: r.why.sentence for r in brokerage.reasons if r.why.code in FOR_GOOD}
    alive = brokerage.alive
    if any(site.name not in refusals for site in alive):
        return []
    listed = " ".join(f"Edge {site.name}: {refusals[site.name]}" for site in alive[:MAX_EDGES])
    return [f"No {_those(alive)} may have it. {listed}"]


def _misfit(account: Account, alive: Sequence[SiteTraits]) -> list[str]:
    """Why no living edge has room for the task's jobs, as far as edges have said what they have room for."""
    rooms = [(site.name, site.room) for site in alive if site.room is not None]
    if account.job is None:
        return []
    if not rooms:
        return [f"No {_those(alive)} has asked for jobs yet."]
    refusals = [(name, room.refusal(account.job, container=account.in_container)) for name, room in rooms]
    if not all(refusal for _, refusal in refusals):
        return []
    listed = "; ".join(f"on edge {name} a job {refusal}" for name, refusal in refusals[:MAX_EDGES])
    more = f"; and {len(refusals) - MAX_EDGES} edges more" if len(refusals) > MAX_EDGES else ""
    return [f"No {_those(alive)} that has asked for jobs has room for one: {listed}{more}."]


def _those(alive: Sequence[SiteTraits]) -> str:
    """What is said of the edges that were looked at: there may be more."""
    return "living edge" if len(alive) < MAX_SITES else f"edge of the {MAX_SITES} that asked last"


async def _losses(uow: UnitOfWork, account: Account) -> list[str]:
    said = await _chances(uow, account)
    if not account.failed:
        return said
    (first,) = await uow.failures.page(account.task_id, after=None, limit=1)
    count = (
        f"{counted(account.failed, account.unit)} failed, of at most {account.max_failed} that it may lose"
    )
    why = f" ({first.kind})" if first.kind is not None else ""
    return [f"{count}; the first is {account.unit} {first.event}{why}: {first.error}", *said]


async def _chances(uow: UnitOfWork, account: Account) -> list[str]:
    """What was tried again by itself, and what is asked for since."""
    again = await uow.tried_again.count(account.task_id)
    if not again:
        return []
    more = [
        f"{factor:g} times the {what}"
        for what, factor in (("memory", account.more_memory), ("time", account.more_time))
        if factor > 1.0
    ]
    asked = f"; it asks for {' and '.join(more)} since" if more else ""
    said = [f"{counted(again, account.unit)} had failed and got another chance{asked}."]
    split = await uow.pieces.told(account.task_id) if account.is_split else None
    if split is not None and split.last is not None:
        times = "One job was" if split.count == 1 else f"{split.count} times a job was"
        said.append(f"{times} too large and was split; the last time: {split.last}.")
    return said


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
