"""What the journals of a pack's earlier incarnations show to be left of its events."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hpcpanda.allocation.plan import LeasedEvents, MpiJobPack, TaskWork, WorkPack
from hpcpanda.allocation.spool import AllocationFolder, Spool, journal_pattern
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.ledger import single_events
from hpcpanda.events.journal import events_of, recover_journal


def last_incarnation(folder: AllocationFolder, pack_id: str) -> int:
    """The highest incarnation of a pack that was started; -1 when there is none."""
    numbers = [
        int(found[1])
        for path in folder.packs.glob(f"{pack_id}-i*.json")
        if (found := re.fullmatch(rf"{re.escape(pack_id)}-i(\d+)\.json", path.name))
    ]
    return max(numbers, default=-1)


def work_left(spool: Spool, allocation_id: str, pack: WorkPack | MpiJobPack) -> tuple[TaskWork, ...]:
    """The pack's work without what its journals show as done or failed."""
    return tuple(
        replace(
            work, events=_events_left(spool.events(work.task_id), allocation_id, pack.pack_id, work.events)
        )
        for work in pack.work
    )


def _events_left(
    events: Path, allocation_id: str, pack_id: str, leased: tuple[LeasedEvents, ...]
) -> tuple[LeasedEvents, ...]:
    left = {part.epoch: part.events for part in leased}
    for path in sorted(events.glob(journal_pattern(allocation_id, pack_id))):
        try:
            journal = recover_journal(path)
        except CorruptData:
            continue
        for epoch in left:
            left[epoch] -= events_of(journal.entries[journal.entries["epoch"] == epoch])
        for failed in journal.failed:
            if failed.epoch in left:
                left[failed.epoch] -= single_events(f.event for f in failed.events)
    slices = {part.epoch: part.slices for part in leased}
    return tuple(LeasedEvents(epoch=e, events=s, slices=slices[e]) for e, s in left.items() if s)
