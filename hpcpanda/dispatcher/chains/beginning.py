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
    writes = spec.output.dataset
    if writes is None:
        return True
    await uow.datasets.get(
        reads.dataset_id, hold=True
    )  # two that close a circle at once would not see each other
    seen: set[str] = set()
    new = {reads.dataset.did}
    while new:
        seen |= new
        if writes in seen:
            raise InvalidValue(
                "output.dataset",
                f"{writes} is what the tasks read that write {reads.dataset.did}, which this one reads: all of them would "
                "wait for each other; write another dataset, or close one of these first",
            )
        if len(seen) > MAX_LINKS:
            raise InvalidValue(
                "inputs.dataset", f"{reads.dataset.did} hangs on more than {MAX_LINKS} open datasets"
            )
        new = await uow.chains.read_by_writers(new) - seen
    return True
