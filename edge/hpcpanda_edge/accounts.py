"""The edge's accounts: which events it holds, which pack works on them, what is finished, what the dispatcher knows.

Every function is one step, called inside a transaction of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from hpcpanda.allocation.plan import LeasedEvents
from hpcpanda.domain.exchange import Grants, LeaseCommit
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLedger, FailedEvent, single_events
from hpcpanda.domain.scouting import MAX_SCOUTS, JobMeasure
from hpcpanda.events.journal import Entries, JournalPart, core_seconds, entries_within, events_of
from hpcpanda_edge.input_files import reads_dataset, with_files_of
from hpcpanda_edge.records import CommitRecord, JournalRecord, LeaseRecord, TaskRecord
from hpcpanda_edge.slicing import drop_if_done, keep_slices, slices_among
from hpcpanda_edge.store import Store
from hpcpanda_edge.usage import earn

MAX_COMMIT_BOUNDS: Final = 100_000
"""Most bounds of interval sets in one commit; more are cut into several."""
MAX_COMMIT_FAILED: Final = 2_000
"""Most failed events in one commit."""

_NEVER_EXPIRES: Final = 1e18


def take_grants(store: Store, grants: Grants) -> int:
    """Enter new leases; gives the number of events. What a task is may have changed: the newest that is told counts."""
    events = 0
    for grant in grants.leases:
        known = store.tasks.get(grant.task_id)
        task = known or TaskRecord(task_id=grant.task_id, spec=grant.spec, first_epoch=grant.first_epoch)
        event_seconds = grant.event_seconds or task.event_seconds
        spec = grant.spec
        if reads_dataset(spec):
            needed = unfinished_events(store, grant.task_id) | grant.events
            spec = with_files_of(known.spec if known else None, spec, needed)
        store.tasks.put(replace(task, spec=spec, event_seconds=event_seconds))
        key = (grant.task_id, grant.epoch)
        if key not in store.leases:
            ledger = EventLedger.over(grant.events)
            store.leases.put(LeaseRecord(task_id=grant.task_id, epoch=grant.epoch, ledger=ledger))
            keep_slices(store, grant)
            events += len(grant.events)
    return events


def leases_of(store: Store, task_id: int) -> list[LeaseRecord]:
    """The leases of a task, by epoch."""
    return sorted((v for v in store.leases.values() if v.task_id == task_id), key=lambda v: v.epoch)


def ready_events(store: Store, task_id: int) -> IntervalSet:
    """Events of a task that are here and that no pack works on."""
    return IntervalSet.of(
        r for v in store.leases.values() if v.task_id == task_id for r in v.ledger.ready.ranges()
    )


def unfinished_events(store: Store, task_id: int) -> IntervalSet:
    """Events of a task that are here and not finished, whether or not a pack works on them."""
    found = ready_events(store, task_id)
    for lease in store.leases.values():
        if lease.task_id == task_id:
            for local in lease.ledger.leases.values():
                found |= local.outstanding
    return found


def in_packs(store: Store, task_id: int) -> bool:
    """Whether a part of a pack that is not settled is of the task."""
    records = store.allocations.values()
    return any(part.task_id == task_id for r in records for pack in r.packs for part in pack.open_parts)


def held_events(store: Store) -> dict[tuple[int, str], int]:
    """Unfinished events by task and the pack that works on them."""
    held: dict[tuple[int, str], int] = {}
    for lease in store.leases.values():
        for local in lease.ledger.leases.values():
            key = lease.task_id, local.holder
            held[key] = held.get(key, 0) + len(local.outstanding)
    return held


def hand_out(
    store: Store, task_id: int, holder: str, limit: int, *, among: IntervalSet | None = None
) -> tuple[LeasedEvents, ...]:
    """Give up to ``limit`` ready events of a task, of those ``among`` if said, to a pack."""
    given: list[LeasedEvents] = []
    for lease in leases_of(store, task_id):
        if limit <= 0:
            break
        if not lease.ledger.ready:
            continue
        ledger = lease.ledger_copy()
        granted = ledger.grant(holder=holder, limit=limit, expires=_NEVER_EXPIRES, among=among)
        if granted is None:
            continue
        store.leases.put(replace(lease, ledger=ledger))
        slices = slices_among(store, lease.key, granted.granted)
        given.append(LeasedEvents(epoch=lease.epoch, events=granted.granted, slices=slices))
        limit -= len(granted.granted)
    return tuple(given)


def release(store: Store, task_id: int, holder: str) -> int:
    """What a pack that is gone did not finish is ready again; gives the number of events.

    Expects that all its journals have been read to their end.
    """
    released = 0
    for lease in leases_of(store, task_id):
        if any(v.holder == holder for v in lease.ledger.leases.values()):
            ledger = lease.ledger_copy()
            released += len(ledger.release(holder))
            ledger.forget_closed()
            store.leases.put(replace(lease, ledger=ledger))
    return released


def give_back(store: Store, task_id: int) -> int:
    """Return all ready events of a task to the dispatcher; gives their number."""
    returned = 0
    for lease in leases_of(store, task_id):
        if ready := lease.ledger.ready:
            ledger = lease.ledger_copy()
            ledger.space -= ready
            ledger.ready = EMPTY
            left = replace(lease, ledger=ledger, returning=lease.returning | ready)
            store.leases.put(left)
            drop_if_done(store, left)
            returned += len(ready)
    return returned


def lose(store: Store, lease: LeaseRecord) -> frozenset[str]:
    """The dispatcher has given a lease's events to somebody else; gives the packs that work on them."""
    holders = frozenset(v.holder for v in lease.ledger.leases.values() if v.outstanding)
    ledger = lease.ledger_copy()
    ledger.space = ledger.done | single_events(ledger.failed)
    ledger.ready = EMPTY
    ledger.leases = {}
    store.leases.put(replace(lease, ledger=ledger, returning=EMPTY, lost=True))
    store.slices.drop(lease.key)
    return holders


def accept(
    store: Store,
    journal: JournalRecord,
    holder: str,
    part: JournalPart,
    measures: Mapping[tuple[int, int], JobMeasure] = MappingProxyType({}),
) -> int:
    """Enter what a journal newly says; gives the number of accepted events. ``measures``: what scouts have used, by task
    and job.

    A finished range counts if all of it is outstanding for the pack that wrote it, under the epoch it was written
    for; anything else (a copy by an earlier incarnation, a revoked epoch) is ignored for ever.
    """
    chosen = dict(journal.chosen)
    failed: dict[int, list[FailedEvent]] = {}
    for aside in part.failed:
        failed.setdefault(aside.epoch, []).extend(aside.events)
    epochs = {int(e) for e in np.unique(part.entries["epoch"])} | failed.keys()
    total = 0
    for epoch in sorted(epochs):
        lease = store.leases.get((journal.task_id, epoch))
        if lease is None:
            continue
        outstanding = lease.outstanding(holder)
        entries = without_overlaps(entries_within(part.entries, epoch, outstanding))
        done = events_of(entries)
        lost = _set_aside(failed.get(epoch, ()), outstanding - done)
        if not done and not lost:
            continue
        seconds = core_seconds(entries)
        _settle(store, lease, holder, done, lost)
        _enqueue(store, lease.key, done, lost, seconds, measures)
        earn(store, journal.name, journal.task_id, seconds)
        if done:
            chosen[epoch] = chosen.get(epoch, EMPTY) | done
        total += len(done) + len(lost)
    store.journals.put(
        replace(journal, offset=part.next_offset, closed=journal.closed or part.closed, chosen=chosen)
    )
    return total


def without_overlaps(entries: Entries) -> Entries:
    """The entries in order, less those that overlap an earlier one that is kept."""
    if len(entries) < 2:
        return entries
    order = np.argsort(entries["first"], kind="stable")
    first, last = entries["first"][order], entries["last"][order]
    reach = np.maximum.accumulate(last)
    alone: npt.NDArray[np.bool_] = np.ones(len(order), dtype=bool)
    alone[1:] = first[1:] >= reach[:-1]
    if alone.all():
        return entries
    group = np.cumsum(alone)
    crowded = np.bincount(group)[group] > 1
    keep = np.ones(len(entries), dtype=bool)
    taken: dict[int, IntervalSet] = {}
    for at in sorted(np.flatnonzero(crowded).tolist(), key=lambda i: int(order[i])):
        mine = taken.get(int(group[at]), EMPTY)
        if mine.overlaps(int(first[at]), int(last[at])):
            keep[order[at]] = False
        else:
            taken[int(group[at])] = mine.add(int(first[at]), int(last[at]))
    kept: Entries = entries[keep]
    return kept


def acknowledge(store: Store, key: tuple[int, int], accepted: IntervalSet, refused: IntervalSet) -> None:
    """The dispatcher has answered a commit."""
    lease = store.leases.get(key)
    if lease is not None and accepted:
        store.leases.put(replace(lease, acknowledged=lease.acknowledged | accepted))
    if not refused:
        return
    task_id, epoch = key
    for journal in [j for j in store.journals.values() if j.task_id == task_id]:
        if journal.chosen.get(epoch, EMPTY) & refused:
            chosen = {**journal.chosen, epoch: journal.chosen[epoch] - refused}
            store.journals.put(replace(journal, chosen=chosen))


def _settle(
    store: Store, lease: LeaseRecord, holder: str, done: IntervalSet, failed: list[FailedEvent]
) -> None:
    ledger = lease.ledger_copy()
    for local in list(ledger.leases.values()):
        if local.holder == holder:
            mine = [f for f in failed if f.event in local.outstanding]
            ledger.commit(local.epoch, holder=holder, done=done & local.outstanding, failed=mine)
    settled = replace(lease, ledger=ledger)
    store.leases.put(settled)
    drop_if_done(store, settled)


def _set_aside(failed: Iterable[FailedEvent], outstanding: IntervalSet) -> list[FailedEvent]:
    return list({f.event: f for f in failed if f.event in outstanding}.values())


def _enqueue(
    store: Store,
    key: tuple[int, int],
    done: IntervalSet,
    failed: list[FailedEvent],
    seconds: float,
    measures: Mapping[tuple[int, int], JobMeasure],
) -> None:
    """Put a commit into the outbox, cut so that each part fits a message."""
    number = max(store.commits, default=0) + 1
    total = max(1, len(done))
    for part in pieces(done, MAX_COMMIT_BOUNDS):
        share = seconds * len(part) / total
        told = tuple(m for (task_id, job), m in measures.items() if task_id == key[0] and job in part)
        commit = LeaseCommit(
            task_id=key[0], epoch=key[1], done=part, core_seconds=share, measured=told[:MAX_SCOUTS]
        )
        store.commits.put(CommitRecord(number=number, commit=commit))
        number += 1
    for at in range(0, len(failed), MAX_COMMIT_FAILED):
        commit = LeaseCommit(task_id=key[0], epoch=key[1], failed=tuple(failed[at : at + MAX_COMMIT_FAILED]))
        store.commits.put(CommitRecord(number=number, commit=commit))
        number += 1


def pieces(events: IntervalSet, bounds: int) -> Iterator[IntervalSet]:
    """Cut a set into sets of at most so many bounds."""
    for at in range(0, len(events.bounds), bounds):
        yield IntervalSet(events.bounds[at : at + bounds])
