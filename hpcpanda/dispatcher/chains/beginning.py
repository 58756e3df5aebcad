"""Tasks that are submitted on a dataset which is still open."""

from __future__ import annotations

from hpcpanda.dispatcher.catalogue.port import Entry
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.task import TaskSpec

MAX_LINKS = 100
"""Most datasets looked at to see whether one comes from another."""


async def may_grow(uow: UnitOfWork, spec: TaskSpec, reads: Entry) -> bool:
    """Whether a task that is submitted begins with a dataset to which files may still come.

    Raises:
        InvalidValue: the files would come from the task itself, by way of others.
    """
    assert spec.inputs is not None, "it reads a dataset"
    if not reads.dataset.open or not spec.inputs.grows:
        return False
    if await waits_for_itself(uow, reads, spec.output.dataset):
        raise InvalidValue(
            "output.dataset",
            f"{spec.output.dataset} is what the tasks read that write {reads.dataset.did}, which this one reads: all of them "
            "would wait for each other; write another dataset, or close one of these first",
        )
    return True


async def link_growing(uow: UnitOfWork, spec: TaskSpec, reads: Entry, *, task_id: int) -> None:
    """Tie a new task to the dataset that it reads, if it is to grow with that: also one that is closed now may be opened
    again."""
    if spec.inputs is not None and spec.inputs.grows:
        policy, seen = spec.inputs.if_abandoned, reads.dataset.events
        await uow.chains.add(task_id, reads.dataset_id, if_abandoned=policy, seen=seen)


async def waits_for_itself(uow: UnitOfWork, reads: Entry, writes: str | None) -> bool:
    """Whether what a task would read comes, by way of others, from what it writes.

    Raises:
        InvalidValue: it hangs on too many datasets to tell.
    """
    if writes is None:
        return False
    await uow.datasets.get(
        reads.dataset_id, hold=True
    )  # two that close a circle at once would not see each other
    seen: set[str] = set()
    new = {reads.dataset.did}
    while new:
        seen |= new
        if writes in seen:
            return True
        if len(seen) > MAX_LINKS:
            raise InvalidValue(
                "inputs.dataset", f"{reads.dataset.did} hangs on more than {MAX_LINKS} open datasets"
            )
        new = await uow.chains.read_by_writers(new) - seen
    return False
