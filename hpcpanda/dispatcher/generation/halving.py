"""Split jobs that were too large: each goes on as two jobs of half its files or events."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.generation.slices import spans_of
from hpcpanda.dispatcher.store.generation import Made
from hpcpanda.dispatcher.store.pieces import pieces_in
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.failures import FailureKind, sentence_of
from hpcpanda.domain.halving import Halves, long
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import single_events
from hpcpanda.domain.task import TaskSpec

MAX_SPLIT_JOBS = 1000
"""So many jobs of a task are split: when more are too large, all of them are, and more time or memory is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splittable:
    """Jobs of a task that can be split."""

    made: Made | None = None
    """How the task's jobs are made; None where none can be split."""
    halves: Mapping[int, Halves] = field(default_factory=dict)
    """By job."""


async def splittable(uow: UnitOfWork, account: Account, spec: TaskSpec, jobs: Collection[int]) -> Splittable:
    """Which of these jobs of a task can be split. Expects that the task is held.

    None can while scouts run, whose number is what the others are numbered from; nor where a job tells what it is to do by
    its number.
    """
    if not account.is_split or account.scouts or _goes_by_number(spec):
        return Splittable()
    made = await uow.generation.get(account.task_id)
    chosen = sorted(jobs)[: max(0, MAX_SPLIT_JOBS - pieces_in(made))]
    if not made.plan or not chosen:
        return Splittable()
    spans = await spans_of(uow, account.task_id, made, single_events(chosen))
    unit = made.plan[-1].unit
    halves = {job: half for job in chosen if (half := Halves.of(job, unit, spans[job])) is not None}
    return Splittable(made=made, halves=halves)


async def split(
    uow: UnitOfWork,
    account: Account,
    found: Splittable,
    jobs: Mapping[int, FailureKind],
    *,
    now: float,
) -> dict[int, int]:
    """Split jobs, which failed for these reasons and are ready again; gives the new jobs, by the old ones.

    The new ones are behind all others of the task, and ready. Writing the account is left to the caller.
    """
    assert found.made is not None, "nothing of it can be split"
    assert account.job is not None, "only jobs are split"
    first = account.total
    assert first == found.made.jobs, "jobs are numbered from 0 without a gap"
    new = {first + at: found.halves[job] for at, job in enumerate(sorted(jobs))}
    whys = {
        other: half.said(other, needed=needed(jobs[half.job], account.job)) for other, half in new.items()
    }
    await uow.pieces.add(account.task_id, found.made, new, whys)
    await uow.ready.put(account.task_id, IntervalSet.span(first, first + len(new)))
    account.grew(len(new), now=now)
    return {half.job: other for other, half in new.items()}


def needed(kind: FailureKind, asked: JobRequest) -> str:
    """What was wrong with a job that is split, as what it did."""
    match kind:
        case FailureKind.WALLTIME:
            return f"needed more than {long(asked.walltime_s)}"
        case FailureKind.MEMORY:
            return f"needed more than {asked.memory_mb} MiB of memory"
        case _:
            said = sentence_of(kind)
            return f"failed ({said[0].lower()}{said[1:]})"


def _goes_by_number(spec: TaskSpec) -> bool:
    """Whether what a job does depends on its number, or on how many there are."""
    payload = spec.payload
    if not isinstance(payload, JobPayload):
        return False
    words = (*payload.command, *payload.environment.values())
    return any("{jobs}" in word for word in words) or any("{job}" in path for path in payload.inputs)
