"""The spool folder as the edge reads and writes it. Calls block; the edge makes the slow ones in a thread."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hpcpanda.allocation.plan import AddWork, AllocationStatus, MergePack, Pack, StartPack
from hpcpanda.allocation.spool import MESSAGE, PLAN, STATUS, Spool, read_message, write_message
from hpcpanda.allocation.timeline import collect as collect_timeline
from hpcpanda.allocation.timeline import write_trace
from hpcpanda.domain.errors import CorruptData
from hpcpanda.events.journal import JournalPart, read_journal
from hpcpanda_edge.journal_names import JournalName
from hpcpanda_edge.records import AllocationRecord, JournalRecord, MessageRecord

MAX_READ: int = 64 * 2**20
"""Journals that have grown by more than this in all are read a share at a time."""


@dataclass(slots=True)
class StatusReader:
    """Reads status files that have changed since the last look."""

    spool: Spool
    troubles: dict[str, str] = field(default_factory=dict)
    """Allocations whose status is there and cannot be understood, and why."""
    _seen: dict[str, int] = field(default_factory=dict)

    def read(self, allocation_ids: Iterable[str]) -> list[AllocationStatus]:
        """The statuses that are new."""
        new: list[AllocationStatus] = []
        for allocation_id in allocation_ids:
            path = self.spool.allocation(allocation_id).status
            try:
                changed = path.stat().st_mtime_ns
                if self._seen.get(allocation_id) == changed:
                    continue
                self._seen[allocation_id] = changed
                new.append(read_message(path, STATUS))
                self.troubles.pop(allocation_id, None)
            except OSError:
                self._seen.pop(allocation_id, None)
            except CorruptData as problem:
                self.troubles[allocation_id] = str(problem)
        return new


@dataclass(frozen=True, slots=True, kw_only=True)
class PackJournals:
    """Which journals of a task in a pack to read, and how."""

    task_id: int
    allocation_id: str
    pack_id: str
    incarnation: int
    """The one that runs; journals of earlier ones are read to their end."""
    over: bool
    """The pack is done with the task: all its journals are read to their end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadJournal:
    """A stretch of a journal that is new."""

    name: JournalName
    record: JournalRecord
    part: JournalPart


@dataclass(slots=True)
class Collected:
    """What one look at the journals has found."""

    journals: list[ReadJournal] = field(default_factory=list)
    troubled: set[tuple[str, str, int]] = field(default_factory=set)
    """Allocation, pack and task of journals that could not be read to their end now."""
    broken: list[JournalRecord] = field(default_factory=list)
    """Journals of which nothing further can be understood."""
    errors: list[str] = field(default_factory=list)


def collect(
    spool: Spool, packs: Iterable[PackJournals], known: dict[tuple[int, str], JournalRecord]
) -> Collected:
    """Read what is new in the journals of these packs."""
    found = Collected()
    budget = MAX_READ
    by_task: dict[int, dict[tuple[str, str], PackJournals]] = {}
    for pack in packs:
        by_task.setdefault(pack.task_id, {})[pack.allocation_id, pack.pack_id] = pack
    for task_id, wanted in by_task.items():
        folder = spool.events(task_id)
        try:
            names = sorted(entry.name for entry in os.scandir(folder))
        except FileNotFoundError:
            continue
        except OSError as problem:
            found.errors.append(f"{folder}: {problem.strerror}")
            found.troubled |= {(*key, task_id) for key in wanted}
            continue
        for file in names:
            name = JournalName.parse(file)
            looked = wanted.get((name.allocation_id, name.pack_id)) if name is not None else None
            if name is None or looked is None:
                continue
            record = known.get((task_id, file)) or JournalRecord(name=file, task_id=task_id)
            budget -= _look(found, folder / file, name, record, looked, budget)
    return found


def _look(
    found: Collected, path: Path, name: JournalName, record: JournalRecord, pack: PackJournals, budget: int
) -> int:
    """Read one journal if it has grown; gives the bytes read."""
    to_end = pack.over or name.incarnation < pack.incarnation
    if record.closed:
        return 0
    try:
        size = path.stat().st_size
        if size <= record.offset:
            return 0
        if budget <= 0:
            found.troubled.add((name.allocation_id, name.pack_id, pack.task_id))
            return 0
        if to_end:
            _make_durable(path)
        part = read_journal(path, start=record.offset, durable_only=not to_end)
    except OSError as problem:
        found.errors.append(f"{path}: {problem.strerror}")
        found.troubled.add((name.allocation_id, name.pack_id, pack.task_id))
        return 0
    except CorruptData as problem:
        found.errors.append(f"{path}: {problem}; what follows in it is not used")
        found.broken.append(record)
        return 0
    if part.next_offset > record.offset:
        found.journals.append(ReadJournal(name=name, record=record, part=part))
    return size - record.offset


def _make_durable(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_plan(spool: Spool, record: AllocationRecord) -> None:
    """Make the folder of an allocation, with its plan."""
    assert record.plan is not None
    folder = spool.allocation(record.allocation_id)
    folder.create()
    for pack in record.plan.packs:
        _make_output_folder(spool, pack)
    write_message(folder.plan, PLAN, record.plan)


def write_inbox(spool: Spool, message: MessageRecord) -> None:
    """Leave a message for an allocation; harmless when it is there already."""
    folder = spool.allocation(message.allocation_id)
    if isinstance(message.message, StartPack):
        _make_output_folder(spool, message.message.pack)
    elif isinstance(message.message, AddWork):
        spool.events(message.message.work.task_id).mkdir(parents=True, exist_ok=True)
    write_message(folder.message(message.number), MESSAGE, message.message)


def void_plan(spool: Spool, allocation_id: str) -> None:
    """Take the plan away: an allocation that has not started cannot start any more."""
    folder = spool.allocation(allocation_id)
    with contextlib.suppress(FileNotFoundError):
        folder.plan.rename(folder.plan.with_suffix(".voided"))


def remove_task(spool: Spool, task_id: int) -> None:
    """Delete segments and journals of a task; merged files stay.

    Journals of allocations that still run are kept for their timelines, in the allocation's folder.
    """
    for path in spool.events(task_id).glob("*.journal"):
        name = JournalName.parse(path.name)
        if name is None:
            continue
        kept = spool.allocation(name.allocation_id)
        if kept.history.exists() and not kept.timeline.exists():
            kept.journals.mkdir(exist_ok=True)
            path.rename(kept.journals / f"{task_id}-{path.name}")
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(spool.events(task_id))
    for folder in (spool.output(task_id), spool.events(task_id).parent):
        with contextlib.suppress(OSError):  # there is an output
            folder.rmdir()


def keep_timeline(spool: Spool, allocation_id: str) -> None:
    """Write the trace of an allocation that has ended; one that never began has none."""
    folder = spool.allocation(allocation_id)
    if folder.timeline.exists() or not folder.history.exists():
        return
    write_trace(collect_timeline(spool, allocation_id), folder.timeline)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder.journals)


def remove_allocation(spool: Spool, allocation_id: str) -> None:
    """Delete the folder of an allocation, with its logs."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(spool.allocation(allocation_id).path)


def _make_output_folder(spool: Spool, pack: Pack) -> None:
    if isinstance(pack, MergePack):
        spool.output(pack.task_id).mkdir(parents=True, exist_ok=True)
        return
    for work in pack.work:
        spool.events(work.task_id).mkdir(parents=True, exist_ok=True)
