"""Tasks that read a dataset: lease the events whose files are where the edge is, and tell it of those files.

What a lease costs depends on the files in it, never on those of the dataset.
"""

from __future__ import annotations

from dataclasses import replace

from hpcpanda.brokerage.network import Data
from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.catalogue.port import Entry
from hpcpanda.dispatcher.store.catalogue_windows import PORTION, Place
from hpcpanda.dispatcher.store.ready import MAX_FRAGMENTS
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.usecases.datasets import existing
from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import InvalidValue, NotFound
from hpcpanda.domain.inputs import InputFile
from hpcpanda.domain.intervals import EMPTY, EventRange, IntervalSet
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.why import Why

MAX_FILES = 2000
"""Most files of which one lease has events."""
MAX_WEIGHT = 1_000_000
"""Most characters that the clusters of these files take."""
FEW = 128
"""Files looked at first: most leases need no more."""
MAX_STEPS = 50
"""Most portions of files looked through for one lease."""


async def dataset_read(uow: UnitOfWork, spec: TaskSpec) -> Entry | None:
    """The dataset whose entries are the events of a task that is submitted; None when it reads none.

    Raises:
        InvalidValue: there is no such dataset, or it cannot be read.
    """
    if spec.inputs is None or spec.inputs.dataset is None:
        return None
    if spec.inputs.files or spec.inputs.listing is not None:
        raise InvalidValue("inputs.files", "are those of 'inputs.dataset'; leave out one of the two")
    did = Did.parse(spec.inputs.dataset, "inputs.dataset")
    try:
        entry = await existing(uow.datasets, did)
    except NotFound as error:
        raise InvalidValue("inputs.dataset", str(error)) from error
    if entry.dataset.open and not spec.inputs.grows:
        raise InvalidValue(
            "inputs.dataset",
            f"{did} is open, files may still come; 'hpcpanda dataset close {did}' closes it, and with 'inputs.grows' they "
            "are read as they come",
        )
    if not entry.dataset.events and not entry.dataset.open:
        raise InvalidValue("inputs.dataset", f"{did} has no files")
    return entry


async def place_data(uow: UnitOfWork, task_id: int, entry: Entry) -> None:
    """Tell brokerage where the inputs of a task are."""
    sites = await uow.datasets.sites(entry.dataset_id)
    await uow.data.put(task_id, Data(size=entry.dataset.size, at={share.site: share.size for share in sites}))


def reads_events(account: Account) -> bool:
    """Whether the events of a task are the entries of a dataset."""
    return account.dataset_id is not None and account.job is None


async def take_here(uow: UnitOfWork, account: Account, limit: int, *, site: str) -> IntervalSet:
    """Take out the first ready events of a task whose files are at a site, at most ``limit``, of a bounded number of
    files. Expects that the task is held."""
    assert account.dataset_id is not None, "it reads a dataset"
    taken = EMPTY
    parts: dict[int, EventRange] = {}
    room = _Room()
    at = 0
    for portion in (FEW, *(PORTION,) * MAX_STEPS):
        ready = await uow.ready.parts(account.task_id, at)
        if not ready:
            break
        at = max(at, ready[0].first)
        places = await uow.windows.places(account.dataset_id, site, first_event=at, limit=portion)
        if not places:
            break
        parts |= {part.first: part for part in ready}
        here = IntervalSet.of(EventRange(p.first, p.last) for p in places) & IntervalSet.of(ready)
        here, _ = room.fitting(here.remove(0, at) if at else here, places).take(limit - len(taken))
        taken |= here
        if len(taken) == limit or room.full or taken.fragments >= MAX_FRAGMENTS:
            break
        at = max(min(places[-1].last, ready[-1].last), places[0].first)
    taken = IntervalSet(taken.bounds[: 2 * MAX_FRAGMENTS])
    if taken:
        await uow.ready.take_from(account.task_id, IntervalSet.of(parts.values()), taken)
    return taken


class _Room:
    """What a lease may still carry of files."""

    def __init__(self) -> None:
        self._files = MAX_FILES
        self._weight = MAX_WEIGHT
        self.full = False

    def fitting(self, events: IntervalSet, places: list[Place]) -> IntervalSet:
        """The first of the events, of as many files as fit."""
        for place in places:
            if not events.overlaps(place.first, place.last):
                continue
            if not self._files or (self._weight < place.weight and self._files < MAX_FILES):
                self.full = True
                return events & IntervalSet.span(0, place.first)
            self._files -= 1
            self._weight -= place.weight
        return events


def not_here(account: Account, site: str) -> Why:
    """Why a site was given nothing of a task."""
    return Why(
        code="no-data",
        sentence=f"No file that has one of the {account.ready} events that are ready is at {site}; "
        "'hpcpanda dataset add' tells of copies.",
        numbers={"ready": float(account.ready)},
    )


async def with_files(
    uow: UnitOfWork, spec: TaskSpec, account: Account, events: IntervalSet, *, site: str
) -> TaskSpec:
    """A task's specification with those of its files that hold these events, by their paths at a site."""
    assert account.dataset_id is not None, "it reads a dataset"
    assert spec.inputs is not None, "its events are entries of a dataset"
    files: list[InputFile] = []
    rest = events
    while rest:
        found = await uow.windows.at_site(
            account.dataset_id, site, first_event=rest.bounds[0], last_event=rest.bounds[-1]
        )
        files += [file.as_input() for file in found if rest.overlaps(file.first, file.last)]
        if not found:
            break
        rest = rest.remove(0, found[-1].last)
    return replace(spec, inputs=replace(spec.inputs, files=tuple(files)))
