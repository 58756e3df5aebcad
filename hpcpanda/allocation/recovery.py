"""What the journals of a pack's earlier incarnations show to be left of its events."""

from __future__ import annotations

import re
from pathlib import Path

from hpcpanda.allocation.plan import EventPack, LeasedEvents
from hpcpanda.allocation.spool import journal_pattern
from hpcpanda.domain.errors import CorruptData
from hpcpanda.domain.ledger import single_events
from hpcpanda.events.journal import events_of, recover_journal


def last_incarnation(events: Path, allocation_id: str, pack_id: str) -> int:
    """The highest incarnation that has a journal; -1 when there is none."""
    numbers = [
        int(found[1])
        for path in events.glob(journal_pattern(allocation_id, pack_id))
        if (found := re.search(r"-i(\d+)-r\d+\.journal$", path.name))
    ]
    return max(numbers, default=-1)


def events_left(events: Path, allocation_id: str, pack: EventPack) -> tuple[LeasedEvents, ...]:
    """The pack's events without those that its journals show as done or failed."""
    left = {part.epoch: part.events for part in pack.events}
    for path in sorted(events.glob(journal_pattern(allocation_id, pack.pack_id))):
        try:
            journal = recover_journal(path)
        except CorruptData:
            continue
        for epoch in left:
            left[epoch] -= events_of(journal.entries[journal.entries["epoch"] == epoch])
        for failed in journal.failed:
            if failed.epoch in left:
                left[failed.epoch] -= single_events(f.event for f in failed.events)
    return tuple(LeasedEvents(epoch=e, events=s) for e, s in left.items() if s)
