"""What the dispatcher asks of a catalogue of datasets.

The built-in one, :class:`hpcpanda.dispatcher.store.catalogue.Datasets`, is in the dispatcher's own database and part of
its transactions. One that is elsewhere is asked when a task is submitted and when an output is recorded, never when work
is leased: leases read the files of a dataset from the dispatcher's own tables.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from hpcpanda.domain.dataset import Dataset, Growth, NewDataset, PlacedFile, Provenance
from hpcpanda.domain.did import Did


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A dataset, and the number under which the dispatcher knows it."""

    dataset_id: int
    dataset: Dataset
    closed_by: int | None = None
    """The task whose end has closed it; None of one that is open, and of one that its owner has closed."""


class Catalogue(Protocol):
    """Datasets and their files. Names are those of :mod:`hpcpanda.domain.did`."""

    async def find(self, did: Did, *, hold: bool = False) -> Entry | None:
        """A dataset, if there is one.

        Args:
            did: its name.
            hold: nobody else changes it until the transaction ends; only where one writes.
        """

    async def create(self, new: NewDataset, *, owner: str, now: float) -> Entry:
        """Make a dataset, empty and open. Expects that there is none of that name."""

    async def known(self, dataset_id: int, names: Collection[str]) -> dict[str, PlacedFile]:
        """The files of a dataset that have one of these names, without their copies."""

    async def add(self, entry: Entry, growth: Growth, *, task_id: int | None, now: float) -> Dataset:
        """Add files and copies; gives the dataset as it then is. Expects that it is held.

        Args:
            entry: the dataset as it was.
            growth: what is new.
            task_id: the task that has made the new files.
            now: Unix seconds.
        """

    async def close(self, dataset_id: int, *, by: int | None, now: float) -> None:
        """No more files come. Expects that it is held.

        Args:
            dataset_id: its number.
            by: the task whose end closes it; None when its owner does.
            now: Unix seconds.
        """

    async def open_again(self, dataset_id: int, *, now: float) -> None:
        """Files may come again. Expects that it is held."""

    async def files(self, dataset_id: int, *, after: int | None, limit: int) -> Sequence[PlacedFile]:
        """Files in their order, behind the ordinal ``after``, with their copies."""

    async def note_writer(self, dataset_id: int, writer: Provenance) -> None:
        """Note that a task writes a dataset."""

    async def writers(self, dataset_id: int, *, limit: int) -> Sequence[Provenance]:
        """Tasks that write a dataset, newest first."""
