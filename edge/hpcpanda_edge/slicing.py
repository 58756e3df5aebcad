"""What the jobs of tasks that were cut have to do, kept beside their leases for as long as one of them is unfinished."""

from __future__ import annotations

from hpcpanda.domain.exchange import LeaseGrant
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.splitting import JobSlice
from hpcpanda_edge.records import LeaseRecord
from hpcpanda_edge.slice_records import SlicesRecord
from hpcpanda_edge.store import Store


def keep_slices(store: Store, grant: LeaseGrant) -> None:
    """Keep what is told with a new lease."""
    if grant.slices:
        store.slices.put(SlicesRecord(task_id=grant.task_id, epoch=grant.epoch, slices=grant.slices))


def slices_among(store: Store, key: tuple[int, int], jobs: IntervalSet) -> tuple[JobSlice, ...]:
    """What those jobs of a lease have to do; nothing for tasks that were not cut."""
    record = store.slices.get(key)
    return () if record is None else tuple(s for s in record.slices if s.job in jobs)


def drop_if_done(store: Store, lease: LeaseRecord) -> None:
    """Forget what nobody here will do any more."""
    if lease.key in store.slices:
        ledger = lease.ledger
        if not ledger.ready and all(local.closed for local in ledger.leases.values()):
            store.slices.drop(lease.key)
