"""Decide which of the tasks in order the edge that asks may have, and learn how sites do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from hpcpanda.brokerage.broker import ASKED_S, PATIENCE_S, STALLED_S, SiteState, Verdict, judge
from hpcpanda.brokerage.matching import Demand, SiteTraits, refusals
from hpcpanda.brokerage.network import NOWHERE, UNKNOWN_LINK, Data, Link
from hpcpanda.brokerage.node_quarantine import barred
from hpcpanda.brokerage.quarantine import told
from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.expiry import end_unknown
from hpcpanda.dispatcher.usecases.ordering import Candidate, in_order
from hpcpanda.domain.exchange import Capacity
from hpcpanda.domain.failures import NodeQuarantine
from hpcpanda.domain.requirements import Requirements
from hpcpanda.domain.site_report import SiteReport
from hpcpanda.domain.task_views import EdgeReason
from hpcpanda.domain.why import Why

MAX_RIVALS = 16
"""Most sites with which the one that asks is compared: those that asked last."""
MAX_NOTED = 20
"""Most refusals of one request that are noted."""
NOTED_S = 10.0
"""When a site asked is written again only after so long, unless what it got has changed."""
FAILURE_MEMORY = 1000.0
"""The failure rate of a site forgets by 1/e with so many events or jobs."""
FED = 0.5
"""A site that was given less than this part of what it asked for is hungry."""
MAX_SITES = 100
"""Most sites told of in an explanation."""
FOR_GOOD = frozenset({"site-not-allowed", "site-denied", "architecture", "tags"})
"""Codes of refusals that last while task and site are as they are."""
SILENT_EDGES = 4
"""Most stalled edges looked at for one request."""


@dataclass(slots=True, kw_only=True)
class Offer:
    """What an edge may have, best first, and why."""

    site: SiteState
    accounts: list[Account] = field(default_factory=list)
    whys: dict[int, Why] = field(default_factory=dict)
    """Why it may have each of them."""
    refused: dict[int, Why] = field(default_factory=dict)
    """Why it may not have others now."""


async def offered(uow: UnitOfWork, *, edge: str, capacity: Capacity, terms: Terms, now: float) -> Offer:
    """What the edge may have of what waits, in the order in which it is served."""
    site = await uow.sites.get(edge)
    assert site is not None, "every edge that has registered has a site"
    offer = Offer(site=site)
    if site.quarantined_until > now:
        return offer
    candidates = await in_order(uow, site=site, capacity=capacity, tree=terms.tree, now=now)
    contest = await _contest(uow, candidates, edge, now)
    fences = await uow.fences.of_edge(edge, [c.account.task_id for c in candidates if c.account.fenced])
    verdicts: dict[tuple[object, ...], Verdict] = {}
    for one in candidates:
        account, waited_s = one.account, now - one.account.served
        fence = fences.get(account.task_id)
        if fence is not None and fence.until > now:
            offer.refused[account.task_id] = fence.told(now)
            continue
        data = contest.data.get(account.task_id, NOWHERE)
        key = (account.lane_id, account.job, account.in_container, min(waited_s, PATIENCE_S), id(data))
        if key not in verdicts:
            verdicts[key] = judge(
                demand_of(account, one.lane.requirements),
                site,
                contest.rivals,
                waited_s=waited_s,
                now=now,
                data=data,
                links=contest.links,
            )
        verdict = verdicts[key]
        if verdict.may:
            offer.accounts.append(account)
            offer.whys[account.task_id] = _placed(one, verdict.why)
        elif len(offer.refused) < MAX_NOTED:
            offer.refused[account.task_id] = verdict.why
    return offer


async def settle(
    uow: UnitOfWork, offer: Offer, *, granted: Collection[int], filled: float, now: float
) -> None:
    """Note what has come of an offer.

    Args:
        uow: the transaction.
        offer: what the edge could have.
        granted: the tasks of which it was given some.
        filled: the part of what it asked for that it was given, 0..1.
        now: Unix seconds.
    """
    site = offer.site
    edge = site.traits.name
    whys = {task_id: offer.whys[task_id] for task_id in granted}
    await uow.notes.put(edge, whys | offer.refused, now)
    hungry = filled < FED
    first = bool(granted) and site.granted <= site.committed
    if first or hungry != site.hungry or now - site.asked > NOTED_S:
        await uow.sites.note(edge, asked=now, hungry=hungry, **({"granted": now} if first else {}))


async def take_from_stalled(uow: UnitOfWork, offer: Offer, *, now: float) -> int:
    """Make ready again what stalled sites hold and the one that asks may have; gives how many leases that ended.

    A site is stalled that was given something, has finished nothing since, for ``STALLED_S``, and has no core at work
    on it. Its leases end as if their time were up: what it should finish after all is refused. Done for one request in
    ``NOTED_S`` of an edge. Expects that the transaction holds no task.
    """
    if now - offer.site.asked <= NOTED_S or offer.site.quarantined_until > now:
        return 0
    ended = 0
    for edge in await uow.sites.silent(now - STALLED_S, limit=SILENT_EDGES):
        if edge == offer.site.traits.name:
            continue
        held = await uow.leases.open_held_by(edge)
        tasks = {task_id for task_id, _ in held}
        working = await uow.activity.busy_with(edge)
        wanted = {
            task_id
            for task_id, demand in (await demands_of(uow, tasks - working)).items()
            if next(refusals(demand, offer.site.traits), None) is None
        }
        if wanted:
            kept = frozenset(key for key in held if key[0] not in wanted)
            ended += await end_unknown(uow, edge=edge, held=kept, now=now)
            await uow.notes.put(edge, dict.fromkeys(wanted, _stalled(edge, offer.site.traits.name)), now)
            await uow.sites.note(edge, committed=now)
    return ended


async def learn(
    uow: UnitOfWork, *, edge: str, done: int, failed: int, report: SiteReport | None, now: float
) -> tuple[NodeQuarantine, ...] | None:
    """Take in how a site does; gives its nodes on which nothing is to be started, where its edge said how it does.

    Args:
        uow: the transaction.
        edge: the site's edge.
        done: events and jobs that it has just finished.
        failed: those that failed there.
        report: what the edge says of the site.
        now: Unix seconds.
    """
    if done or failed:
        kept = math.exp(-(done + failed) / FAILURE_MEMORY)
        await uow.sites.finished(edge, failing=failed / (done + failed), kept=kept, now=now)
    avoided = None
    if report is not None and report.queue_wait_s is not None:
        avoided = barred(await uow.faults.note_wait(edge, report.queue_wait_s), now=now)
    if report is not None and report.transfers:
        known = await uow.links.into(edge)
        for copy in report.transfers:
            way = (copy.source, edge)
            known[way] = known.get(way, UNKNOWN_LINK).learn(copy.size, copy.seconds)
        await uow.links.save(known)
    return avoided


@dataclass(frozen=True, slots=True, kw_only=True)
class Placements:
    """Where a task may run, as far as brokerage looks: at most ``MAX_SITES`` sites that are there."""

    reasons: tuple[EdgeReason, ...] = ()
    """Why sites may have some of it now or may not, by site."""
    alive: tuple[SiteTraits, ...] = ()
    """The sites that are there, those that asked latest, by name."""


async def placements(uow: UnitOfWork, account: Account, *, terms: Terms, now: float) -> Placements:
    """Why sites may have some of a task now or may not: what was last decided and, where it can never be, why."""
    if account.state.final:
        return Placements()
    said = {note.edge: note for note in await uow.notes.of_task(account.task_id, now=now, limit=MAX_SITES)}
    demand = (await demands_of(uow, [account.task_id]))[account.task_id]
    alive = await uow.sites.alive(now - terms.edge_alive_seconds, limit=MAX_SITES)
    for site in alive:
        refusal = next(refusals(demand, site.traits), None)
        if site.quarantined_until > now:
            refusal = await _quarantine(uow, site, now)
        if refusal is not None:
            said[site.traits.name] = EdgeReason(edge=site.traits.name, why=refusal, ago_s=0.0)
    for fence in await uow.fences.of_task(account.task_id) if account.fenced else ():
        if fence.until > now:
            said[fence.edge] = EdgeReason(edge=fence.edge, why=fence.told(now), ago_s=0.0)
    return Placements(
        reasons=tuple(said[edge] for edge in sorted(said)),
        alive=tuple(sorted((site.traits for site in alive), key=lambda traits: traits.name)),
    )


async def _quarantine(uow: UnitOfWork, site: SiteState, now: float) -> Why:
    until = site.quarantined_until
    sentence = told(await uow.faults.of(site.traits.name), until=until, now=now)
    return Why(code="quarantine", sentence=sentence, numbers={"left_s": until - now})


def demand_of(account: Account, requirements: Requirements) -> Demand:
    """What a task demands of a site."""
    return Demand(requirements=requirements, job=account.job, container=account.in_container)


async def demands_of(uow: UnitOfWork, task_ids: Collection[int]) -> dict[int, Demand]:
    """What tasks demand of a site."""
    accounts = await uow.accounts.seen(task_ids)
    lanes = await uow.lanes.requirements({account.lane_id for account in accounts.values()})
    return {task_id: demand_of(a, lanes[a.lane_id]) for task_id, a in accounts.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contest:
    """With whom the site that asks is compared, and by what."""

    rivals: Sequence[SiteState] = ()
    data: Mapping[int, Data] = field(default_factory=dict)
    links: Mapping[tuple[str, str], Link] = field(default_factory=dict)


async def _contest(uow: UnitOfWork, candidates: Sequence[Candidate], edge: str, now: float) -> _Contest:
    """Nothing is looked up when all that waits has waited long, and when nobody else asks."""
    if not any(now - one.account.served < PATIENCE_S for one in candidates):
        return _Contest()
    found = await uow.sites.hungry(now - ASKED_S, limit=MAX_RIVALS + 1)
    rivals = [rival for rival in found if rival.traits.name != edge and rival.quarantined_until <= now]
    if not rivals:
        return _Contest()
    data = await uow.data.of_tasks([one.account.task_id for one in candidates])
    if not data:
        return _Contest(rivals=rivals)
    places = [edge, *(rival.traits.name for rival in rivals)]
    return _Contest(rivals=rivals, data=data, links=await uow.links.into(*places))


def _placed(one: Candidate, verdict: Why) -> Why:
    order = one.ranked.why()
    return Why(
        code="given",
        sentence=f"{verdict.sentence} {order.sentence}",
        numbers=verdict.numbers | order.numbers,
    )


def _stalled(edge: str, other: str) -> Why:
    return Why(
        code="stalled",
        sentence=f"It was taken from {edge}, which had finished nothing for {STALLED_S / 60:.0f} min and had no core "
        f"at work on it, since {other} could run it.",
        numbers={"silent_s": STALLED_S},
    )
