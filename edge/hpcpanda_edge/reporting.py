"""What the edge says to the dispatcher, and what it makes of the answer. Pure but for the store."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.domain.exchange import (
    MAX_UPDATES,
    LeaseCommit,
    LeaseReturn,
    OutputFile,
    SyncReply,
    SyncRequest,
    TaskActivity,
    TaskFault,
)
from hpcpanda.domain.intervals import EMPTY
from hpcpanda.domain.ledger import ERROR_TEXT_LIMIT
from hpcpanda.domain.scouting import MAX_SCOUTS
from hpcpanda.domain.states import TaskState
from hpcpanda_edge import accounts, usage
from hpcpanda_edge.beginning_again import begin_again
from hpcpanda_edge.records import LeaseRecord, OutputState, output_key
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import Statuses

MAX_REQUEST_BOUNDS = 1_000_000
"""Most bounds of interval sets in one message."""
MAX_OUTPUT_BOUNDS = 200_000
"""Most bounds of the events of merged files in one message, besides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A message to the dispatcher, and the rows it speaks of."""

    request: SyncRequest
    numbers: tuple[tuple[int, ...], ...]
    """For each commit of the request, the rows of the outbox in it."""

    @property
    def urgent(self) -> bool:
        """Whether it says more than that the edge lives."""
        r = self.request
        return bool(r.commits or r.returns or r.outputs or r.faults or r.usage)


def make_report(store: Store, statuses: Statuses, *, instance: str) -> Report:
    """Everything there is to say now."""
    commits, numbers = _commits(store)
    ledger = usage.ledger_of(store)
    request = SyncRequest(
        instance=instance,
        renew=tuple(v.key for v in store.leases.values() if _open(v))[:MAX_UPDATES],
        commits=commits,
        returns=tuple(
            LeaseReturn(task_id=v.task_id, epoch=v.epoch, events=v.returning)
            for v in store.leases.values()
            if v.returning
        )[:MAX_UPDATES],
        outputs=_outputs(store),
        faults=tuple(
            TaskFault(task_id=task.task_id, error=task.fault[:ERROR_TEXT_LIMIT])
            for task in store.tasks.values()
            if task.fault is not None and not task.state.final
        )[:MAX_UPDATES],
        activity=activity(store, statuses)[:MAX_UPDATES],
        tasks=tuple(sorted(store.tasks))[:MAX_UPDATES],
        usage=ledger.report if ledger is not None else None,
    )
    return Report(request=request, numbers=numbers)


def activity(store: Store, statuses: Statuses) -> tuple[TaskActivity, ...]:
    """Cores of each task, and how many of them are at work."""
    cores: dict[int, int] = {}
    busy: dict[int, float] = {}
    for status in statuses.values():
        if not _alive(store, status):
            continue
        for pack in status.packs:
            for said in pack.tasks:
                if pack.state != "ended" and said.task_id in store.tasks:
                    cores[said.task_id] = cores.get(said.task_id, 0) + max(0, said.cores)
                    busy[said.task_id] = busy.get(said.task_id, 0.0) + said.cores_busy
    return tuple(
        TaskActivity(task_id=t, cores=n, cores_busy=max(0.0, min(busy[t], float(n))))
        for t, n in sorted(cores.items())
    )


def apply_reply(store: Store, steps: Steps, report: Report, reply: SyncReply) -> None:
    """Enter the dispatcher's answer. Call inside a transaction."""
    request = report.request
    sequence = request.usage.sequence if request.usage is not None else None
    usage.answered(store, zip(request.commits, reply.commits, strict=True), sequence)
    for numbers, result in zip(report.numbers, reply.commits, strict=True):
        accounts.acknowledge(store, (result.task_id, result.epoch), result.accepted, result.refused)
        for number in numbers:
            store.commits.drop(number)
    for update in request.returns:
        lease = store.leases.get((update.task_id, update.epoch))
        if lease is not None:
            store.leases.put(replace(lease, returning=lease.returning - update.events))
    for key in reply.lost:
        lease = store.leases.get(key)
        if lease is not None and _open(lease):
            steps.revoke(accounts.lose(store, lease), lease.task_id, lease.epoch)
    for output in request.outputs:
        _output_answered(store, output, rejected=output.path in reply.rejected_outputs)
    _task_states(store, steps, reply)


def _output_answered(store: Store, output: OutputFile, *, rejected: bool) -> None:
    """The dispatcher has recorded a merged file, or refused it."""
    record, task = store.outputs.get(output_key(output)), store.tasks.get(output.task_id)
    if record is None or task is None:
        return
    if rejected:
        fault = task.fault or f"the dispatcher refused the merged file {output.path}"
        store.tasks.put(replace(task, fault=fault))
        store.outputs.drop(record.key)
    else:
        store.outputs.put(replace(record, state=OutputState.RECORDED))


def _task_states(store: Store, steps: Steps, reply: SyncReply) -> None:
    for order in reply.tasks:
        task = store.tasks.get(order.task_id)
        if task is None:
            continue
        begin_again(store, steps, order.task_id, order.first_epoch)
        task = store.tasks[order.task_id]
        at_work = order.state in (TaskState.READY, TaskState.SCOUTING)
        state = TaskState.RUNNING if at_work else order.state
        if state is not task.state:
            if state.final:
                steps.stop_task(order.task_id)
            elif state is TaskState.MERGING:
                steps.end_parts(order.task_id)
            store.tasks.put(replace(store.tasks[order.task_id], state=state))


def _outputs(store: Store) -> tuple[OutputFile, ...]:
    """Merged files to be told of, as many as fit a message beside everything else."""
    chosen: list[OutputFile] = []
    bounds = 0
    for record in store.outputs.values():
        if record.state is OutputState.MOVED:
            bounds += len(record.file.events.bounds)
            if chosen and (bounds > MAX_OUTPUT_BOUNDS or len(chosen) >= MAX_UPDATES):
                break
            chosen.append(record.file)
    return tuple(chosen)


def _commits(store: Store) -> tuple[tuple[LeaseCommit, ...], tuple[tuple[int, ...], ...]]:
    """The outbox, joined to few commits, as much of it as fits a message."""
    joined: dict[tuple[int, int, int], tuple[LeaseCommit, tuple[int, ...]]] = {}
    part: dict[tuple[int, int], int] = {}
    bounds = 0
    for number in sorted(store.commits):
        new = store.commits[number].commit
        bounds += len(new.done.bounds) + 20 * len(new.failed)
        if joined and (bounds > MAX_REQUEST_BOUNDS or len(joined) >= MAX_UPDATES):
            break
        lease = (new.task_id, new.epoch)
        key = (*lease, part.setdefault(lease, 0))
        old, numbers = joined.get(key, (LeaseCommit(task_id=new.task_id, epoch=new.epoch), ()))
        if len(old.failed) + len(new.failed) > MAX_UPDATES:
            part[lease] += 1
            key = (*lease, part[lease])
            old, numbers = LeaseCommit(task_id=new.task_id, epoch=new.epoch), ()
        both = replace(
            old,
            done=old.done | new.done,
            failed=old.failed + new.failed,
            core_seconds=old.core_seconds + new.core_seconds,
            measured=(old.measured + new.measured)[:MAX_SCOUTS],
        )
        joined[key] = (both, (*numbers, number))
    return tuple(c for c, _ in joined.values()), tuple(n for _, n in joined.values())


def _open(lease: LeaseRecord) -> bool:
    """Whether some of its events are neither finished nor given back."""
    ledger = lease.ledger
    return not lease.lost and (ledger.ready != EMPTY or any(v.outstanding for v in ledger.leases.values()))


def _alive(store: Store, status: AllocationStatus) -> bool:
    record = store.allocations.get(status.allocation_id)
    return record is not None and record.state == "running" and status.state != "ended"
