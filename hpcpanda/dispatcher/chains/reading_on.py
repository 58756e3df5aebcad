"""Tasks that are tried again after they have read a dataset: files may have come since."""

from __future__ import annotations

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.catalogue.port import Entry
from hpcpanda.dispatcher.chains.beginning import waits_for_itself
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.reading import place_data
from hpcpanda.domain.errors import IllegalTransition


async def read_on(uow: UnitOfWork, account: Account) -> bool:
    """Prepare another try of a task that has ended, as far as it reads a dataset; gives whether there is, or may come, more of
    that than it has taken in. Expects that the task is held.

    Raises:
        IllegalTransition: it would wait for itself, by way of others.
    """
    if account.dataset_id is None:
        return False
    entry = await uow.datasets.get(account.dataset_id)
    await place_data(uow, account.task_id, entry)
    spec = (await uow.accounts.specs([account.task_id]))[account.task_id]
    if spec.inputs is None or not spec.inputs.grows:
        return False
    link = await uow.chains.link(account.task_id)
    if link is None:  # it had read all, when that was forgotten at the end
        policy = spec.inputs.if_abandoned
        await uow.chains.add(account.task_id, entry.dataset_id, if_abandoned=policy, seen=account.total)
    if entry.dataset.open:
        await _require_no_circle(uow, account, entry, spec.output.dataset)
        return True
    return entry.dataset.events > (account.total if link is None else link.seen)


async def _require_no_circle(uow: UnitOfWork, account: Account, entry: Entry, writes: str | None) -> None:
    if await waits_for_itself(uow, entry, writes):
        raise IllegalTransition(
            f"task {account.task_id} writes {writes}, which is what the tasks read that now write {entry.dataset.did}, which it "
            "reads: all of them would wait for each other; close one of these datasets first"
        )
