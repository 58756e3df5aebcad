"""Tasks that write a dataset: their merged files become files of it, in the same transaction as they are recorded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.catalogue.port import Entry
from hpcpanda.dispatcher.store.codec import dump_spec
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.datasets import MAX_WRITERS, append
from hpcpanda.domain.dataset import DatasetFile, NewDataset, Provenance, Replica
from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import Forbidden, InvalidValue
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec

MAX_NAME = 250
MAX_DIGEST = 80
"""Longest name and digest of a file in a dataset."""


async def dataset_written(uow: UnitOfWork, spec: TaskSpec, *, owner: str, now: float) -> Entry | None:
    """The dataset to which a task's files will be added, made if there is none; None when the task names none.

    Raises:
        InvalidValue: it is closed, or the task reads it.
        Forbidden: it is somebody else's.
    """
    if spec.output.dataset is None:
        return None
    did = Did.parse(spec.output.dataset, "output.dataset")
    if spec.inputs is not None and spec.inputs.dataset == str(did):
        raise InvalidValue("output.dataset", f"{did} is what the task reads; write another")
    entry = await uow.datasets.find(did, hold=True)
    if entry is None:
        return await uow.datasets.create(NewDataset(scope=did.scope, name=did.name), owner=owner, now=now)
    if entry.dataset.owner != owner:
        raise Forbidden(
            f"output.dataset: {did} belongs to {entry.dataset.owner}; only tasks of its owner write it"
        )
    if not entry.dataset.open:
        raise InvalidValue("output.dataset", f"{did} is closed, no more files come; name another")
    return entry


async def note_writer(uow: UnitOfWork, entry: Entry, *, task_id: int, spec: TaskSpec) -> None:
    """Note where the files of a dataset will come from."""
    digest = hashlib.sha256(dump_spec(spec).encode()).hexdigest()
    source = spec.inputs.dataset if spec.inputs is not None else None
    writer = Provenance(task_id=task_id, spec_digest=f"sha256:{digest}", source=source)
    await uow.datasets.note_writer(entry.dataset_id, writer)


async def add_outputs(
    uow: UnitOfWork, account: Account, files: Sequence[OutputFile], *, edge: str, now: float
) -> None:
    """Add merged files, newly recorded, to the dataset that their task writes, if it does. Expects that the task is held.

    To a dataset that its owner has closed meanwhile nothing is added: the files are outputs of the task all the same.
    """
    if account.writes_id is None or not files:
        return
    entry = await uow.datasets.get(account.writes_id, hold=True)
    if entry.dataset.open:
        names = await _names(uow, account.writes_id, edge, files)
        made = tuple(_file(file, edge, name) for file, name in zip(files, names, strict=True))
        await append(uow.datasets, entry, made, task_id=account.task_id, now=now)


async def end_writing(uow: UnitOfWork, account: Account, *, now: float) -> bool:
    """Close the dataset that a task writes, when the task has ended well and no other task still writes it; gives whether
    it was closed. Expects that the task is held."""
    if account.writes_id is None or account.state not in (TaskState.DONE, TaskState.FINISHED):
        return False
    entry = await uow.datasets.get(account.writes_id, hold=True)
    if not entry.dataset.open:
        return False
    writers = await uow.datasets.writers(account.writes_id, limit=MAX_WRITERS)
    others = {writer.task_id for writer in writers} - {account.task_id}
    if any(not other.state.final for other in (await uow.accounts.seen(others)).values()):
        return False
    await uow.datasets.close(account.writes_id, by=account.task_id, now=now)
    return True


async def write_again(uow: UnitOfWork, account: Account, *, now: float) -> None:
    """Open the dataset again that a task writes which is tried again, if it was closed since tasks had ended: one that its
    owner has closed stays as it is. Expects that the task is held."""
    if account.writes_id is None:
        return
    entry = await uow.datasets.get(
        account.writes_id, hold=True
    )  # who would close it now waits, and sees the task
    if entry.closed_by is not None:
        await uow.datasets.open_again(account.writes_id, now=now)


async def _names(uow: UnitOfWork, dataset_id: int, edge: str, files: Sequence[OutputFile]) -> list[str]:
    """Names for merged files that are not in the dataset, nor taken there."""
    plain = [file_name(file.task_id, edge, file.path) for file in files]
    taken = set(await uow.datasets.known(dataset_id, plain))
    names: list[str] = []
    for file, name in zip(files, plain, strict=True):
        names.append(name if name not in taken else _unique_name(file.task_id, edge, file.path))
        taken.add(name)
    return names


def _file(output: OutputFile, edge: str, name: str) -> DatasetFile:
    """A merged file as a file of a dataset."""
    return DatasetFile(
        name=name,
        events=len(output.events),
        size=output.size,
        digest=output.digest if len(output.digest) <= MAX_DIGEST else None,
        meta={"events": str(output.events)[:1000]},
        replicas=(Replica(site=edge, path=output.path),),
    )


def file_name(task_id: int, edge: str, path: str) -> str:
    """Name of a merged file in a dataset: ``task<number>.<edge>.<file>``, or one with a digest of the path where that
    cannot be a name."""
    plain = PurePosixPath(path).name
    name = f"task{task_id}.{edge}.{plain}"
    return (
        name
        if re.fullmatch(r"[A-Za-z0-9._-]+", plain) and len(name) <= MAX_NAME
        else _unique_name(task_id, edge, path)
    )


def _unique_name(task_id: int, edge: str, path: str) -> str:
    """A name that no other path of the edge has."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(path).name)
    digest = hashlib.sha256(path.encode()).hexdigest()[:32]
    return f"task{task_id}.{edge}.{digest}.{plain[-60:]}"
