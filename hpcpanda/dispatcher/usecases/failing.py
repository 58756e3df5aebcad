"""What is done about failures: events and jobs that are tried again, sites that are taken off a task or given nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from hpcpanda.brokerage.failures import (
    FACTOR,
    MAX_FACTOR,
    OF_THE_SITE,
    Chances,
    FailureRule,
    decide,
)
from hpcpanda.brokerage.matching import refusals
from hpcpanda.brokerage.node_quarantine import is_node
from hpcpanda.brokerage.quarantine import BARRED_S, SiteFault, is_barred, kept
from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.generation.halving import Splittable, split, splittable
from hpcpanda.dispatcher.store.control import Fence, History
from hpcpanda.dispatcher.store.leases import LeaseKey
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.bad_nodes import note_bad_nodes
from hpcpanda.dispatcher.usecases.brokering import demand_of
from hpcpanda.domain.exchange import LeaseCommit
from hpcpanda.domain.failures import (
    FailureAction,
    FailureKind,
    FailureStep,
    NodeQuarantine,
    sentence_of,
)
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.ledger import EventLease, FailedEvent
from hpcpanda.domain.room import Room
from hpcpanda.domain.why import Why

AVOIDED_S = 3600.0
"""So long a site is given nothing of a task of which something is to be tried elsewhere."""
MAX_TRIED_AGAIN = 10_000
"""Most events of a task that are tried again: when more fail, it is no accident of theirs."""
MAX_STEPS = 40
"""Most failures that are kept of one event: more than can be, of one that is not given up."""
ERROR_KEPT = 500
"""So many characters of each are kept."""
MAX_SITES = 100
"""Most sites looked at."""
MAX_MEMORY_MB = 64_000_000
MAX_WALLTIME_S = 1e7
"""Most that a job may ask for."""


@dataclass(slots=True)
class Judged:
    """What has been decided of failed events of one message."""

    again: dict[LeaseKey, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Those that are to be tried again."""
    histories: dict[tuple[int, int], History] = field(default_factory=dict)
    """By task and event: every failure of the others."""
    kinds: dict[int, FailureKind] = field(default_factory=dict)
    """By task: a kind of failure that was put down to the site."""
    nodes: dict[tuple[int, str], str] = field(default_factory=dict)
    """By task and node: what was put down to the node."""
    told: tuple[NodeQuarantine, ...] | None = None
    """Nodes of the site on which nothing is to be started, where that has changed."""


async def judge_failures(
    uow: UnitOfWork,
    commits: Iterable[LeaseCommit],
    *,
    edge: str,
    accounts: Mapping[int, Account],
    leases: Mapping[LeaseKey, EventLease],
    terms: Terms,
    now: float,
) -> Judged:
    """Decide what becomes of the failed events of a message, as far as their leases still hold them. What is done about
    the task (more memory, a site taken off) is done; taking the events from their leases is left to the caller."""
    judged = Judged()
    for task_id, failures in _held(commits, leases).items():
        bench = _Bench(uow, accounts[task_id], edge=edge, terms=terms, now=now)
        await bench.judge(failures, judged)
    if judged.kinds:
        await note_faults(uow, edge, judged.kinds, accounts=accounts, now=now)
    if judged.nodes:
        judged.told = await note_bad_nodes(uow, edge, judged.nodes, now=now)
    return judged


def _held(
    commits: Iterable[LeaseCommit], leases: Mapping[LeaseKey, EventLease]
) -> dict[int, dict[int, tuple[int, FailedEvent]]]:
    """Failed events that are held, with their epochs, by task and event."""
    found: dict[int, dict[int, tuple[int, FailedEvent]]] = defaultdict(dict)
    for commit in commits:
        lease = leases.get((commit.task_id, commit.epoch)) if commit.failed else None
        for failure in commit.failed if lease is not None else ():
            if lease is not None and failure.event in lease.outstanding:
                found[commit.task_id].setdefault(failure.event, (commit.epoch, failure))
    return found


class _Bench:
    """Judges the failures of one task at one site."""

    def __init__(self, uow: UnitOfWork, account: Account, *, edge: str, terms: Terms, now: float) -> None:
        self._uow = uow
        self._account = account
        self._edge = edge
        self._terms = terms
        self._now = now

    async def judge(self, failures: Mapping[int, tuple[int, FailedEvent]], judged: Judged) -> None:
        task_id = self._account.task_id
        before = await self._uow.tried_again.of(task_id, failures.keys())
        rules = {event: self._terms.rules.of(f.error, f.facts) for event, (_, f) in failures.items()}
        chances = await self._chances(rules.values(), len(failures.keys() - before.keys()))
        found = await self._splittable(rules)
        again: dict[int, History] = {}
        actions: set[FailureAction] = set()
        for event, (epoch, failure) in failures.items():
            rule, earlier = rules[event], before.get(event, ())
            raised = epoch < self._account.raised
            action = decide(rule, earlier, replace(chances, raised=raised, split=event in found.halves))
            history = (*earlier, self._step(rule, action, failure))[-MAX_STEPS:]
            self._put_down(rule, failure, judged)
            if action is FailureAction.GIVE_UP:
                judged.histories[task_id, event] = history
            else:
                judged.again[task_id, epoch].add(event)
                again[event] = history
                actions.add(action)
        await self._split(found, again)
        await self._uow.tried_again.put(task_id, again)
        await self._act(actions, again)

    def _put_down(self, rule: FailureRule, failure: FailedEvent, judged: Judged) -> None:
        """To the node, or the site, if it is of theirs."""
        node = failure.facts.node if failure.facts is not None else None
        if FailureAction.QUARANTINE_NODE in rule.actions and node is not None and is_node(node):
            judged.nodes[self._account.task_id, node] = f"{rule.name}: {failure.error[:ERROR_KEPT]}"
        elif rule.kind in OF_THE_SITE:
            judged.kinds[self._account.task_id] = rule.kind

    async def _splittable(self, rules: Mapping[int, FailureRule]) -> Splittable:
        """Which of the failed jobs can be split, where a rule asks for that."""
        wanted = [event for event, rule in rules.items() if FailureAction.SPLIT in rule.actions]
        if not wanted or not self._account.is_split:
            return Splittable()
        task_id = self._account.task_id
        spec = (await self._uow.accounts.specs([task_id]))[task_id]
        return await splittable(self._uow, self._account, spec, wanted)

    async def _split(self, found: Splittable, again: dict[int, History]) -> None:
        """Split those jobs for which that was decided; what comes of them has their history."""
        jobs = {job: h[-1].kind for job, h in again.items() if h[-1].action is FailureAction.SPLIT}
        if jobs:
            new = await split(self._uow, self._account, found, jobs, now=self._now)
            again |= {other: again[job] for job, other in new.items()}

    def _step(self, rule: FailureRule, action: FailureAction, failure: FailedEvent) -> FailureStep:
        return FailureStep(
            at=self._now,
            edge=self._edge,
            kind=rule.kind,
            rule=rule.name,
            action=action,
            error=failure.error[:ERROR_KEPT],
            attempts=failure.attempts,
            facts=failure.facts,
        )

    async def _chances(self, rules: Collection[FailureRule], new: int) -> Chances:
        """What can be done; nothing is looked up that no rule asks for."""
        wanted = {action for rule in rules for action in rule.actions}
        if wanted == {FailureAction.GIVE_UP}:
            return Chances(retries=0, elsewhere=False, memory=False, time=False)
        task_id = self._account.task_id
        known = await self._uow.tried_again.count(task_id)
        spec = (await self._uow.accounts.specs([task_id]))[task_id]
        others = FailureAction.ELSEWHERE in wanted and bool(
            await other_sites(self._uow, self._account, but=self._edge, terms=self._terms, now=self._now)
        )
        self._asked = spec.job_request
        return Chances(
            retries=spec.loss.retries,
            elsewhere=others,
            memory=FailureAction.MORE_MEMORY in wanted and await self._can(FailureAction.MORE_MEMORY),
            time=FailureAction.MORE_TIME in wanted and await self._can(FailureAction.MORE_TIME),
            crowded=known + new > MAX_TRIED_AGAIN,
        )

    _asked: JobRequest | None = None
    """What the user asked for a job."""

    async def _can(self, action: FailureAction) -> bool:
        """Whether more may be asked for, and a site that is there has room for that."""
        account = self._account
        if account.job is None:
            factor = account.more_memory if action is FailureAction.MORE_MEMORY else account.more_time
            return factor * FACTOR <= MAX_FACTOR
        job = self._raised(action)
        if job == account.job:
            return False
        sites = await self._uow.sites.alive(self._now - self._terms.edge_alive_seconds, limit=MAX_SITES)
        rooms: list[Room] = [site.traits.room for site in sites if site.traits.room is not None]
        return not rooms or any(room.refusal(job, container=account.in_container) is None for room in rooms)

    def _raised(self, action: FailureAction) -> JobRequest:
        """What a job asks for after it was given too little."""
        job, asked = self._account.job, self._asked
        assert job is not None
        assert asked is not None
        if action is FailureAction.MORE_MEMORY:
            most = min(MAX_MEMORY_MB, int(asked.memory_mb * MAX_FACTOR))
            return replace(job, memory_mb=max(job.memory_mb, min(most, int(job.memory_mb * FACTOR))))
        most_s = min(MAX_WALLTIME_S, asked.walltime_s * MAX_FACTOR)
        return replace(job, walltime_s=max(job.walltime_s, min(most_s, job.walltime_s * FACTOR)))

    async def _act(self, actions: AbstractSet[FailureAction], again: Mapping[int, History]) -> None:
        """Do for the task what has been decided for its events."""
        account = self._account
        more = {FailureAction.MORE_MEMORY, FailureAction.MORE_TIME} & actions
        for action in more:
            if account.job is not None:
                account.job = self._raised(action)
            if action is FailureAction.MORE_MEMORY:
                account.more_memory = self._factor("memory_mb", account.more_memory)
            else:
                account.more_time = self._factor("walltime_s", account.more_time)
        if more:
            account.raised = account.next_epoch
        if FailureAction.ELSEWHERE in actions:
            last = next(h[-1] for h in again.values() if h[-1].action is FailureAction.ELSEWHERE)
            known = (await self._uow.fences.of_edge(self._edge, [account.task_id])).get(account.task_id)
            await self._uow.fences.put(
                Fence(
                    task_id=account.task_id,
                    edge=self._edge,
                    first_epoch=known.first_epoch if known is not None else 1,
                    until=self._now + AVOIDED_S,
                    why=_avoided(last.kind, last.rule, last.error),
                )
            )
            account.fenced = True
        if actions & {*more, FailureAction.ELSEWHERE, FailureAction.SPLIT}:
            await self._uow.accounts.rewrite(account)

    def _factor(self, name: str, before: float) -> float:
        job, asked = self._account.job, self._asked
        if job is None or asked is None:
            return before * FACTOR
        return float(getattr(job, name) / getattr(asked, name))


async def other_sites(uow: UnitOfWork, account: Account, *, but: str, terms: Terms, now: float) -> list[str]:
    """Sites whose edges are there and that may have some of a task now, besides one."""
    demand = demand_of(account, (await uow.lanes.requirements([account.lane_id]))[account.lane_id])
    off = {f.edge for f in await uow.fences.of_task(account.task_id) if f.until > now} | {but}
    return [
        site.traits.name
        for site in await uow.sites.alive(now - terms.edge_alive_seconds, limit=MAX_SITES)
        if site.traits.name not in off
        and site.quarantined_until <= now
        and next(refusals(demand, site.traits), None) is None
    ]


async def note_faults(
    uow: UnitOfWork,
    edge: str,
    kinds: Mapping[int, FailureKind],
    *,
    accounts: Mapping[int, Account],
    now: float,
) -> None:
    """Count failures of tasks against their site; when that is too much, it is given nothing for a while."""
    new = [
        SiteFault(at=now, task_id=task_id, owner=accounts[task_id].owner, kind=kind)
        for task_id, kind in kinds.items()
    ]
    faults = kept([*await uow.faults.of(edge), *new], now=now)
    await uow.faults.put(edge, faults)
    if is_barred(faults, now=now):
        await uow.faults.bar(edge, now + BARRED_S)


def _avoided(kind: FailureKind, rule: str, error: str) -> Why:
    return Why(
        code="avoided",
        sentence=f"{sentence_of(kind)} here ({rule}): {error[:200]}",
        numbers={"avoided_s": AVOIDED_S},
    )
