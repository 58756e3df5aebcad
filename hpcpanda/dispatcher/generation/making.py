"""What becomes of a task when it is submitted: its cuts, and its scouts."""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.generation.cutting import Jobs, Source, cut
from hpcpanda.dispatcher.generation.files import DatasetFiles, Files, InlineFiles
from hpcpanda.dispatcher.store.generation import Made
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.scouting import caps_of, guessed_costs, scout_caps
from hpcpanda.domain.splitting import Caps, JobSplit, Unit, by_size
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec

MOST_GROWN_JOBS = 1_000_000_000
"""Most jobs of a task that is cut as files come: nobody knows how many there will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How the jobs of a new task are made."""

    made: Made
    jobs: Jobs | None
    """What was cut; None where the jobs are not slices of anything."""


async def source_of(
    uow: UnitOfWork,
    spec: TaskSpec,
    dataset_id: int | None,
    *,
    site: str | None = None,
    until: int | None = None,
) -> Source:
    """What a task cuts, with the paths that its files have at a site; nothing from the position ``until`` on, if said."""
    assert spec.split is not None, "the task is not cut"
    files = await _files(uow, spec, dataset_id, site)
    unit = Unit.EVENTS if files is None or spec.split.cuts_files else Unit.FILES
    events = spec.event_count if files is None else files.events
    return Source(events=events, files=files, unit=unit, until=until)


async def _files(uow: UnitOfWork, spec: TaskSpec, dataset_id: int | None, site: str | None) -> Files | None:
    if dataset_id is not None:
        dataset = (await uow.datasets.get(dataset_id)).dataset
        return DatasetFiles(uow.windows, dataset_id, count=dataset.files, events=dataset.events, site=site)
    return InlineFiles(spec.inputs) if spec.inputs is not None else None


async def prepare(uow: UnitOfWork, spec: TaskSpec, account: Account) -> Making | None:
    """Cut a new task as far as it can be, and put the counts of it into its account; None where its jobs are just
    numbers, and all are run at once.

    Raises:
        InvalidValue: it cannot be cut as its user says.
        TooLarge: it makes more jobs than can be kept.
    """
    scouts = spec.scout_count
    if spec.split is None:
        total = account.total
        if not 0 < scouts < total:
            return None
        _begin_scouting(account, scouts)
        return Making(made=Made(scouts=scouts, most_jobs=total), jobs=None)
    source = await source_of(uow, spec, account.dataset_id)
    account.is_split = True
    if spec.inputs is not None and spec.inputs.grows:
        return await _prepare_growing(source, spec, account)
    if spec.has_to_learn:
        jobs = _scouts_of(source, spec.split, scouts)
        is_all = jobs.cut.last == source.end
    else:
        jobs = await cut(source, stated_caps(spec))
        is_all = scouts >= jobs.cut.jobs
    _begin(account, source, jobs)
    scouts = 0 if is_all else min(scouts, jobs.cut.jobs)
    if scouts:
        _begin_scouting(account, scouts)
    most = jobs.cut.jobs if is_all or not spec.has_to_learn else source.end
    return Making(made=Made(scouts=scouts, most_jobs=most, plan=(jobs.cut,)), jobs=jobs)


async def keep(uow: UnitOfWork, task_id: int, making: Making) -> None:
    """Write down how a new task is made, within the transaction that inserts it."""
    await uow.generation.add(task_id, making.made)
    if making.jobs is not None and making.jobs.bounds:
        await uow.generation.put_bounds(task_id, making.jobs.cut, making.jobs.bounds)


def stated_caps(spec: TaskSpec) -> Caps:
    """What a job may hold, by the word of the task's user alone."""
    request = spec.job_request
    assert spec.split is not None, "the task is not cut"
    assert request is not None, "only jobs are cut"
    return caps_of(spec.split, guessed_costs(spec.resources.event_seconds, request))


async def _prepare_growing(source: Source, spec: TaskSpec, account: Account) -> Making:
    """Cut what there is of a dataset to which files may come."""
    jobs = await cut(source, stated_caps(spec), to_end=not account.growing)
    if not jobs.cut.jobs:
        account.state, account.total, account.ready = TaskState.PENDING, 0, 0
        return Making(made=Made(most_jobs=MOST_GROWN_JOBS), jobs=None)
    _begin(account, source, jobs)
    return Making(made=Made(most_jobs=MOST_GROWN_JOBS, plan=(jobs.cut,)), jobs=jobs)


def _begin(account: Account, source: Source, jobs: Jobs) -> None:
    account.total = account.ready = jobs.cut.jobs
    if account.guess is not None:
        account.guess *= source.events_in(jobs)


def _scouts_of(source: Source, split: JobSplit, scouts: int) -> Jobs:
    """So many small jobs, from the begin on."""
    caps = scout_caps(split, source.unit)
    size = caps.files if source.unit is Unit.FILES else caps.events
    assert size is not None, "a scout holds so much"
    last = min(source.end, scouts * size)
    return Jobs(cut=by_size(source.unit, first_job=0, first=0, last=last, size=size))


def _begin_scouting(account: Account, scouts: int) -> None:
    account.state = TaskState.SCOUTING
    account.scouts = account.total = account.ready = scouts
