"""Another try of a task: what is here of the earlier one is void. Call inside a transaction of the store."""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.domain.exchange import LeaseGrant
from hpcpanda.domain.states import TaskState
from hpcpanda_edge import accounts
from hpcpanda_edge.merge_work import outputs_of
from hpcpanda_edge.records import OutputState
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store


def begin_again(store: Store, steps: Steps, task_id: int, first_epoch: int) -> None:
    """Forget leases of a task under lower epochs, with all that was finished under them and is in no recorded file, and
    what has gone wrong here. Packs that work under them are told to stop; what they still write is ignored, since
    nothing is known any more of the epochs that it was written for. Does nothing the second time.
    """
    task = store.tasks.get(task_id)
    if task is None or first_epoch <= task.first_epoch:
        return
    for lease in accounts.leases_of(store, task_id):
        if lease.epoch < first_epoch:
            if not lease.lost:
                steps.revoke(accounts.lose(store, lease), task_id, lease.epoch)
            store.leases.drop(lease.key)
    for journal in [j for j in store.journals.values() if j.task_id == task_id]:
        chosen = {epoch: events for epoch, events in journal.chosen.items() if epoch >= first_epoch}
        if len(chosen) < len(journal.chosen):
            store.journals.put(replace(journal, chosen=chosen))
    for output in outputs_of(store, task_id):
        if output.state is not OutputState.RECORDED:
            store.outputs.drop(output.key)
    store.tasks.put(
        replace(
            task,
            first_epoch=first_epoch,
            state=TaskState.RUNNING if task.state.final else task.state,
            merge=None,
            fault=None,
            error=None,
            fruitless=0,
            failures=0,
            merges_failed=0,
            not_before=0.0,
        )
    )


def ask_anew(store: Store, steps: Steps, grant: LeaseGrant) -> None:
    """When workers of a task of events are to have more memory or time than the packs that run it were told, these
    are to be done with it: what they have left, and what is new, is given to packs that are told so."""
    task = store.tasks.get(grant.task_id)
    if task is not None and grant.spec.job_request is None and task.spec.resources != grant.spec.resources:
        steps.end_parts(grant.task_id)
