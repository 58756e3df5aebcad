"""Say in sentences what a task that grows waits for."""

from __future__ import annotations

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.chains import Writer
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.wording import counted
from hpcpanda.domain.splitting import Unit

MAX_WRITERS = 5
"""Most tasks named that write the dataset."""


async def growth(uow: UnitOfWork, account: Account) -> list[str]:
    """How far a task has come with the dataset that it reads, and who still writes that; nothing of a task that does not
    grow."""
    if not account.growing or account.dataset_id is None:
        return []
    dataset = (await uow.datasets.get(account.dataset_id)).dataset
    files = await _files_used(uow, account, account.dataset_id)
    state = "still open" if dataset.open else "closed just now"
    used = f"{files} of its files used, with {counted(account.total, account.unit)}"
    reasons = [f"It waits for dataset {dataset.did}: {used if files else 'it has no files yet'}, {state}."]
    writers = await uow.chains.writers(account.dataset_id, limit=MAX_WRITERS)
    if not writers:
        return [*reasons, "No task writes the dataset: it ends when its owner closes it."]
    reasons += [_writer(writer) for writer in writers]
    if dataset.open and await uow.chains.is_abandoned(account.dataset_id):
        close = f"'hpcpanda dataset close {dataset.did}' lets this one end with what is there"
        reasons.append(f"No task writes the dataset any more, and it is not closed: {close}.")
    return reasons


async def unread(uow: UnitOfWork, account: Account) -> list[str]:
    """Of a task that has ended: that files have come since to the dataset which it reads, and what reads them."""
    link = await uow.chains.link(account.task_id) if account.dataset_id is not None else None
    if link is None or account.dataset_id is None:
        return []
    dataset = (await uow.datasets.get(account.dataset_id)).dataset
    retry = f"'hpcpanda task retry {account.task_id}' reads them, too"
    if more := dataset.events - link.seen:
        return [
            f"Since then {counted(more, 'event')} came to dataset {dataset.did}, which it reads: {retry}."
        ]
    return []


async def _files_used(uow: UnitOfWork, account: Account, dataset_id: int) -> int:
    """Files of which something was taken in."""
    if not account.is_split:
        return await uow.chains.files_before(dataset_id, account.total)
    plan = (await uow.generation.get(account.task_id)).plan
    if not plan:
        return 0
    last = plan[-1].last
    return last if plan[-1].unit is Unit.FILES else await uow.chains.files_before(dataset_id, last)


def _writer(writer: Writer) -> str:
    if writer.state.final:
        return f"Task {writer.task_id}, which writes it, is {writer.state}."
    return f"Task {writer.task_id} writes it and is {writer.state}."
