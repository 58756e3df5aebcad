"""Record merged files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.writing import add_outputs
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.intervals import IntervalSet


async def record_outputs(
    uow: UnitOfWork, accounts: Mapping[int, Account], *, edge: str, reports: Iterable[OutputFile], now: float
) -> list[str]:
    """Record an edge's merged files; gives the paths of those that are refused.

    A file is refused when it holds an event that the edge has not committed as done, or one that is in
    another file already. An identical report is accepted again.
    """
    by_task: dict[int, list[OutputFile]] = defaultdict(list)
    for report in reports:
        by_task[report.task_id].append(report)
    rejected: list[str] = []
    for task_id, files in by_task.items():
        account = accounts.get(task_id)
        if account is None:
            rejected += [file.path for file in files]
        else:
            rejected += await _record(uow, account, edge, files, now)
    return rejected


async def _record(
    uow: UnitOfWork, account: Account, edge: str, files: Sequence[OutputFile], now: float
) -> list[str]:
    recorded = await uow.outputs.of_task(account.task_id)
    known = {(where, file.path): file for where, file in recorded}
    free = await uow.leases.committed_by(account.task_id, edge)
    free -= await uow.failures.numbers(account.task_id)
    free -= IntervalSet.of(r for _, file in recorded for r in file.events.ranges())
    rejected: list[str] = []
    new: list[OutputFile] = []
    for file in files:
        before = known.get((edge, file.path))
        if before is not None and before == file:
            continue
        if before is not None or account.state.final or not file.events or not file.events.issubset(free):
            rejected.append(file.path)
            continue
        known[edge, file.path] = file
        free -= file.events
        account.merged += len(file.events)
        await uow.outputs.add(edge, file)
        new.append(file)
    await add_outputs(uow, account, new, edge=edge, now=now)
    return rejected
