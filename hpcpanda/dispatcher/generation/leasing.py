"""Lease jobs of tasks that are cut, and tell edges what each of them has to do."""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.generation.making import source_of
from hpcpanda.dispatcher.generation.slices import most_told, pieces_of
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import single_events
from hpcpanda.domain.splitting import JobSlice
from hpcpanda.domain.task import TaskSpec

MAX_STEPS = 20
"""Most portions of jobs looked through for one lease."""


async def take_jobs(uow: UnitOfWork, account: Account, limit: int, *, site: str) -> IntervalSet:
    """Take out the first ready jobs of a task that is cut, at most ``limit``, of those whose files are at a site, as far
    as a dataset says where files are. Expects that the task is held."""
    spec = (await uow.accounts.specs([account.task_id]))[account.task_id]
    made = await uow.generation.get(account.task_id)
    source = await source_of(uow, spec, account.dataset_id, site=site)
    most = most_told(source, made)
    limit = min(limit, most)
    if account.dataset_id is None:
        return (await uow.ready.take({account.task_id: limit}))[account.task_id]
    taken = EMPTY
    at = 0
    for _ in range(MAX_STEPS):
        ready = await uow.ready.parts(account.task_id, at)
        some, _ = IntervalSet.of(ready).remove(0, at).take(most)
        if not some:
            break
        pieces = await pieces_of(uow, account.task_id, source, made, some)
        here, _ = single_events(p.job for p in pieces if p.is_here).take(limit - len(taken))
        if here:
            await uow.ready.take_from(account.task_id, IntervalSet.of(ready), here)
            taken |= here
        if len(taken) == limit:
            break
        at = some.bounds[-1]
    return taken


async def told_slices(
    uow: UnitOfWork, account: Account, spec: TaskSpec, jobs: IntervalSet, *, site: str
) -> tuple[TaskSpec, tuple[JobSlice, ...]]:
    """What an edge is told of a task that is cut: a task of so many jobs, and what these have to do."""
    made = await uow.generation.get(account.task_id)
    source = await source_of(uow, spec, account.dataset_id, site=site)
    pieces = await pieces_of(uow, account.task_id, source, made, jobs)
    plain = replace(spec, jobs=made.most_jobs, split=None, events=None, inputs=None, scouts=made.scouts)
    return plain, tuple(piece.told() for piece in pieces)
