"""What scouts have shown: it decides what the other jobs of their task ask for and hold."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.generation.cutting import Jobs, Source, cut, most_events
from hpcpanda.dispatcher.generation.making import source_of
from hpcpanda.dispatcher.generation.slices import pieces_of
from hpcpanda.dispatcher.store.generation import Made
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.closing import close, judge
from hpcpanda.dispatcher.wording import counted
from hpcpanda.domain.errors import InvalidValue, TooLarge
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.ledger import single_events
from hpcpanda.domain.scouting import Costs, caps_of, costs, enough_back, guessed_costs, request_of, scout_caps
from hpcpanda.domain.splitting import Caps
from hpcpanda.domain.states import TaskEvent, TaskState
from hpcpanda.domain.task import TaskSpec

PATIENCE_S = 600.0
"""No scout has come back for so long, and for the walltime of a job: the rest waits no longer."""
PORTION = 500
"""Tasks looked at together."""

_JUDGED = (TaskState.SCOUTING, TaskState.RUNNING)


async def tasks_to_judge(uow: UnitOfWork, *, now: float) -> list[int]:
    """Tasks of which enough scouts are back."""
    found: list[int] = []
    after = 0
    async with uow:
        while some := await uow.generation.scouting(after=after, limit=PORTION):
            found += [account.task_id for account in some if _is_due(account, now)]
            after = some[-1].task_id
    return found


async def judge_scouts(uow: UnitOfWork, *, task_id: int, now: float) -> bool:
    """Make the other jobs of a task ready, as its scouts have shown them to be; gives whether that was done now.

    A task that cannot be cut by what they have shown fails, with the reason as its message. Its scouts stay scouts: whoever
    has it tried again finds that what was not cut still is to be.
    """
    async with uow:
        account = (await uow.accounts.some((task_id,))).get(task_id)
        if account is None or not _is_due(account, now):
            return False
        spec = (await uow.accounts.specs([task_id]))[task_id]
        try:
            await _release(uow, account, spec, now)
        except (InvalidValue, TooLarge) as problem:
            account.take(TaskEvent.FAIL, now=now, message=f"its scouts have run, but {problem}")
            await close(uow, account)
        await uow.accounts.rewrite(account)
    return True


def _is_due(account: Account, now: float) -> bool:
    if not account.scouts or account.state not in _JUDGED or not account.done or account.job is None:
        return False
    silent_s = now - account.rate_at
    back = account.done + account.failed
    return enough_back(scouts=account.scouts, back=back) or silent_s > account.job.walltime_s + PATIENCE_S


async def _release(uow: UnitOfWork, account: Account, spec: TaskSpec, now: float) -> None:
    made = await uow.generation.get(account.task_id)
    stated = account.job  # what the user has said, unless scouts that failed were given more since
    assert stated is not None, "only jobs are scouts"
    if spec.split is None:
        account.job = request_of(stated, made.measured)
        total = made.most_jobs
    else:
        scouted = await _with_rest(uow, account, spec, stated, made)
        account.job = scouted.request
        total = scouted.made.jobs
        await uow.generation.change(account.task_id, scouted.made)
    more = IntervalSet.span(account.scouts, total) if total > account.scouts else None
    back = account.done
    account.scouts = 0
    account.take(TaskEvent.SCOUTED, now=now, message=_said(account.job, stated, made, back))
    if more is not None:
        account.ready += len(more)
        account.total = total
        await uow.ready.put(account.task_id, more)
    await judge(uow, account, now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scouted:
    """A task that is cut, after its scouts."""

    made: Made
    request: JobRequest


async def _with_rest(
    uow: UnitOfWork, account: Account, spec: TaskSpec, stated: JobRequest, made: Made
) -> _Scouted:
    assert spec.split is not None
    task_id = account.task_id
    at_first = made.most_jobs if spec.has_to_learn else None  # a dataset may have been opened again since
    source = await source_of(uow, spec, account.dataset_id, until=at_first)
    scouts = single_events(m.job for m in made.measured)
    pieces = await pieces_of(uow, task_id, source, made, scouts)
    events = {piece.job: piece.last - piece.first for piece in pieces}
    jobs = await _rest(spec, stated, source, made, costs(made.measured, events))
    if jobs.cut is not made.plan[-1]:
        made = replace(made, plan=(*made.plan, jobs.cut))
        if jobs.bounds:
            await uow.generation.put_bounds(task_id, jobs.cut, jobs.bounds)
    else:
        jobs = await _with_bounds(uow, task_id, jobs)
    largest = await most_events(source, jobs)
    growth = {job: largest / max(1, own) for job, own in events.items()}
    return _Scouted(made=made, request=request_of(stated, made.measured, growth=growth, split=spec.split))


async def _rest(spec: TaskSpec, stated: JobRequest, source: Source, made: Made, shown: Costs) -> Jobs:
    """What is left, cut by what was shown; or all, where it was cut from the begin."""
    assert spec.split is not None
    so_far = made.plan[-1]
    if not spec.has_to_learn or so_far.last == source.end:
        return Jobs(cut=so_far)
    guess = guessed_costs(spec.resources.event_seconds, stated)
    caps = caps_of(spec.split, replace(shown, wall_s=shown.wall_s or guess.wall_s))
    if caps == Caps():  # nothing of them could be measured
        caps = scout_caps(spec.split, source.unit)
    return await cut(source, caps, first_job=so_far.end_job, position=so_far.last)


async def _with_bounds(uow: UnitOfWork, task_id: int, jobs: Jobs) -> Jobs:
    if jobs.cut.size is not None:
        return jobs
    kept = await uow.generation.bounds(task_id, jobs.cut.first_job, jobs.cut.end_job)
    return replace(jobs, bounds=[kept[job][0] for job in sorted(kept)])


def _said(request: JobRequest, stated: JobRequest, made: Made, back: int) -> str:
    """What a user is told of it."""
    scouts = f"{back} of {counted(made.scouts, 'scout')} succeeded"
    if not made.measured:
        return f"{scouts}, and nothing was measured: its jobs ask for what was stated"
    wall = max(m.wall_s for m in made.measured)
    rss = max(m.max_rss_mb for m in made.measured)
    took = f"{scouts} and took at most {wall:.0f} s and {rss:.0f} MiB"
    if request == stated:
        return f"{took}: its jobs ask for what was stated"
    return f"{took}: its jobs now ask for {request.walltime_s:.0f} s and {request.memory_mb} MiB"
