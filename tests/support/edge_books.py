"""An edge's memory with one lease in it, and journal entries to try on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hpcpanda_edge import accounts
from hpcpanda_edge.records import JournalRecord
from hpcpanda_edge.store import Store
from support.edge import small_task

from hpcpanda.domain.exchange import Grants, LeaseGrant
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.events.journal import ENTRY, Entries, FailedInEpoch, JournalPart

JOURNAL = JournalRecord(name="a1-p1-i0-r0.journal", task_id=1)


def fresh(path: Path, *, events: int = 100, held: int = 100) -> Store:
    """A store with a lease of ``events`` events, the first ``held`` of them in the hands of pack a1-p1."""
    store = Store(path)
    grant = LeaseGrant(
        task_id=1, epoch=7, events=IntervalSet.span(0, events), spec=small_task(events), expires_in_s=60.0
    )
    with store.transaction():
        accounts.take_grants(store, Grants(leases=(grant,)))
        accounts.hand_out(store, 1, "a1-p1", held)
    return store


def entries(*ranges: tuple[int, int], epoch: int = 7) -> Entries:
    rows = np.zeros(len(ranges), dtype=ENTRY)
    for row, (first, last) in zip(rows, ranges, strict=True):
        row["epoch"], row["first"], row["last"], row["wall_s"] = epoch, first, last, last - first
    return rows


def part(rows: Entries, *failed: FailedInEpoch, offset: int = 1) -> JournalPart:
    return JournalPart(
        header=None, schema=None, entries=rows, failed=failed, closed=False, next_offset=offset
    )


def accept(
    store: Store,
    rows: Entries,
    *failed: FailedInEpoch,
    journal: JournalRecord = JOURNAL,
    holder: str = "a1-p1",
) -> int:
    with store.transaction():
        return accounts.accept(store, store.journals.get(journal.key, journal), holder, part(rows, *failed))
