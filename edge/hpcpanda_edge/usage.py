"""What tasks use at this site: counted from what the edge knows anyway, said to the dispatcher once.

Every count and every answer is one transaction of the store with all that it changes, so a crash at any moment neither
loses what was counted nor counts it again. What is counted of an allocation is the difference between what is known of
it and what was counted before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.allocation.spool import STATUS, Spool, read_message
from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.domain.exchange import CommitResult, LeaseCommit
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState
from hpcpanda.domain.usage import Amounts, UsageLedger
from hpcpanda_edge.cut_short import cut_short
from hpcpanda_edge.journal_names import JournalName
from hpcpanda_edge.records import AllocationRecord
from hpcpanda_edge.store import Store
from hpcpanda_edge.usage_records import ChargeRecord

COUNT_S: Final = 15.0
"""Time between two counts, beside those at the ends of allocations."""
_BEGUN: Final = "allocation-started"
"""In the history of an allocation: a head begins."""


def ledger_of(store: Store) -> UsageLedger | None:
    """What there is to say of usage; None before anything was ever counted."""
    return store.usage.get("ledger")


def earn(store: Store, journal: str, task_id: int, core_seconds: float) -> None:
    """Something of a journal was accepted. Call inside a transaction."""
    name = JournalName.parse(journal)
    charge = _charge(store, name.allocation_id) if name is not None else None
    if charge is not None and core_seconds > 0:
        earned = charge.earned | {task_id: charge.earned.get(task_id, 0.0) + core_seconds}
        store.charges.put(replace(charge, earned=earned))


def answered(store: Store, commits: Iterable[tuple[LeaseCommit, CommitResult]], report: int | None) -> None:
    """The dispatcher has answered commits, and perhaps a report of usage. Call inside a transaction."""
    ledger = ledger_of(store)
    if ledger is None:
        return
    after = ledger.add((commit.task_id, _settled(commit, result)) for commit, result in commits)
    if report is not None:
        after = after.answered(report)
    if after is not ledger:
        store.usage.put(after)


class UsageKeeper:
    """Counts what allocations hold and what their cores do, by task."""

    def __init__(self, store: Store, spool: Spool, site: Site, now: float) -> None:
        self._store = store
        self._spool = spool
        self._site = site
        self._counted = 0.0
        self._heard: dict[str, float] = {}
        """When the status of an allocation was written that was looked at last."""
        self._work: dict[str, dict[int, float]] = {}
        """Core-seconds of each task since the last count, as statuses say: how what is counted is divided."""
        self._begun: dict[str, tuple[int, float]] = {}
        """Life of the head of the present run of an allocation, -1 before it was heard, and when the run began: the batch
        system says so earlier than the head does."""
        if ledger_of(store) is None:
            with store.transaction():
                store.usage.put(UsageLedger(since=now))

    @property
    def all_said(self) -> bool:
        """Whether the dispatcher knows all that was counted."""
        ledger = ledger_of(self._store)
        return ledger is None or not (ledger.sent or ledger.gathered)

    def look(self, statuses: Mapping[str, AllocationStatus]) -> None:
        """Note when allocations begin and for which tasks their cores work; from statuses as they come in."""
        for record in self._store.allocations.values():
            self._note_begin(record)
        for name, status in statuses.items():
            before = self._heard.get(name, status.written)
            self._heard[name] = status.written
            seconds = max(0.0, status.written - before)
            work = self._work.setdefault(name, {})
            for said in (said for pack in status.packs if pack.state != "ended" for said in pack.tasks):
                work[said.task_id] = work.get(said.task_id, 0.0) + max(0.0, said.cores_busy) * seconds

    def _note_begin(self, record: AllocationRecord) -> None:
        life, begun = self._begun.get(record.allocation_id, (None, 0.0))
        if record.started is None or record.state is AllocationState.CLOSED:
            return
        if life is None or (record.life > life and life >= 0):
            begun = record.started
        self._begun[record.allocation_id] = record.life, min(begun, record.started)

    def count(self, statuses: Mapping[str, AllocationStatus], *, at_once: bool = False) -> None:
        """Count what is new, if it is time or an allocation has ended, and make a report of it.

        Raises:
            Unavailable: the disk refuses; nothing was counted.
        """
        due = [r for r in self._store.allocations.values() if self._is_open(r)]
        ended = any(r.state is AllocationState.CLOSED for r in due)
        if not (at_once or ended or time.monotonic() - self._counted >= COUNT_S):
            return
        with self._store.transaction():
            for record in due:
                self._count(record, statuses.get(record.allocation_id))
            for name in [n for n in self._store.charges if n not in self._store.allocations]:
                self._store.charges.drop(name)
            ledger = ledger_of(self._store)
            assert ledger is not None
            if (after := ledger.next_report()) is not ledger:
                self._store.usage.put(after)
        self._counted = time.monotonic()
        for record in due:
            self._work.pop(record.allocation_id, None)
            if record.state is AllocationState.CLOSED:
                self._heard.pop(record.allocation_id, None)
                self._begun.pop(record.allocation_id, None)

    def _is_open(self, record: AllocationRecord) -> bool:
        charge = _charge(self._store, record.allocation_id)
        return charge is not None and not charge.closed

    def _count(self, record: AllocationRecord, status: AllocationStatus | None) -> None:
        charge = _charge(self._store, record.allocation_id)
        assert charge is not None
        over = record.state is AllocationState.CLOSED
        status = status or (self._last_status(record) if over else None)
        found: dict[int, Amounts] = {}
        seconds, busy_s, until = self._new(record, charge, status, over=over)
        shares = self._shares(record, charge)
        for task_id, share in shares.items():
            node_s = record.nodes * seconds * share
            held_s = node_s * self._site.nodes.cores
            found[task_id] = Amounts(node_s=node_s, held_s=held_s, used_s=busy_s * share)
        used = {t: charge.used.get(t, 0.0) + busy_s * share for t, share in shares.items()}
        waited_s = _waited(record, charge)
        for task_id in _tasks_of(record) if waited_s is not None else ():
            found[task_id] = found.get(task_id, Amounts()).plus(
                Amounts(waiting_s=(waited_s or 0.0) / len(_tasks_of(record)))
            )
        charge = replace(
            charge,
            until=until,
            counted_s=charge.counted_s + seconds,
            busy_s=charge.busy_s + busy_s,
            used=charge.used | used,
            waited=charge.waited or waited_s is not None,
            closed=over,
        )
        self._enter(charge, found)
        if over:
            self._enter(charge, self._losses(record, charge, status))

    def _enter(self, charge: ChargeRecord, found: Mapping[int, Amounts]) -> None:
        ledger = ledger_of(self._store)
        assert ledger is not None
        self._store.usage.put(ledger.add(found.items()))
        if charge != self._store.charges.get(charge.allocation_id):
            self._store.charges.put(charge)

    def _new(
        self, record: AllocationRecord, charge: ChargeRecord, status: AllocationStatus | None, *, over: bool
    ) -> tuple[float, float, float]:
        """Seconds of the allocation and core-seconds at work that were not counted, and the end of what is now.

        While it runs, its head's last word is the last that is certain: what is counted is never more than what is
        charged. At the end its history says more, also of what was while no edge ran.
        """
        seconds, until = 0.0, charge.until
        if record.started is not None and status is not None and status.life == record.life:
            until = max(charge.until, status.written)
            _, begun = self._begun.get(record.allocation_id, (record.life, record.started))
            seconds = max(0.0, until - max(charge.until, begun))
        if over:
            told = self._seconds_told(record, status)
            seconds = max(seconds, told - charge.counted_s)
        busy_s = max(0.0, status.busy_s - charge.busy_s) if status is not None else 0.0
        return seconds, busy_s, until

    def _seconds_told(self, record: AllocationRecord, status: AllocationStatus | None) -> float:
        """How long an allocation has run in all, as its history says: each run up to the last that was heard of it."""
        begun: list[float] = []
        last: list[float] = []
        for at, what in self._history(record):
            if what == _BEGUN:
                begun.append(at)
                last.append(at)
            elif last:
                last[-1] = max(last[-1], at)
        if last and status is not None:
            last[-1] = max(last[-1], status.written)
        return sum(max(0.0, end - start) for start, end in zip(begun, last, strict=True))

    def _history(self, record: AllocationRecord) -> list[tuple[float, str]]:
        found: list[tuple[float, str]] = []
        try:
            lines = self._spool.allocation(record.allocation_id).history.read_text(errors="replace")
        except OSError:
            return found
        for line in lines.splitlines():
            try:
                said = json.loads(line)
                found.append((float(said["at"]), str(said["what"])))
            except (ValueError, TypeError, KeyError):
                continue
        return found

    def _last_status(self, record: AllocationRecord) -> AllocationStatus | None:
        """The last word of the head of an allocation that has ended."""
        try:
            return read_message(self._spool.allocation(record.allocation_id).status, STATUS)
        except (OSError, HpcPandaError):
            return None

    def _shares(self, record: AllocationRecord, charge: ChargeRecord) -> dict[int, float]:
        """How an allocation is divided: as its cores have just worked, else as they did before, else evenly."""
        for work in (self._work.get(record.allocation_id, {}), charge.used):
            if (total := sum(work.values())) > 0:
                return {task_id: amount / total for task_id, amount in work.items()}
        tasks = _tasks_of(record)
        return {task_id: 1 / len(tasks) for task_id in tasks}

    def _losses(
        self, record: AllocationRecord, charge: ChargeRecord, status: AllocationStatus | None
    ) -> dict[int, Amounts]:
        """What cores did in an allocation that is over without anything having been accepted of it."""
        lost = {t: used - charge.earned.get(t, 0.0) for t, used in charge.used.items()}
        if self._was_preempted(record, status, charge):
            return {t: Amounts(preempted_s=seconds) for t, seconds in lost.items() if seconds > 0}
        return {t: Amounts(lost_s=seconds) for t, seconds in lost.items() if seconds > 0}

    def _was_preempted(
        self, record: AllocationRecord, status: AllocationStatus | None, charge: ChargeRecord
    ) -> bool:
        """Whether the batch system has ended a run of it: one before the last, or the last."""
        return record.life > 0 or cut_short(record, status, self._site, until=charge.until)


def _settled(commit: LeaseCommit, result: CommitResult) -> Amounts:
    """What has become of a commit: what it took of what was refused is lost."""
    accepted = len(commit.done & result.accepted)
    useful_s = commit.core_seconds * accepted / max(1, len(commit.done))
    return Amounts(
        useful_s=useful_s,
        lost_s=max(0.0, commit.core_seconds - useful_s),
        done=accepted,
        failed=len(result.accepted) - accepted,
    )


def _charge(store: Store, allocation_id: str) -> ChargeRecord | None:
    """How far an allocation was counted; None when this edge began to count later than it."""
    charge = store.charges.get(allocation_id)
    record, ledger = store.allocations.get(allocation_id), ledger_of(store)
    if charge is not None or record is None or ledger is None or record.created < ledger.since:
        return charge
    return ChargeRecord(allocation_id=allocation_id)


def _waited(record: AllocationRecord, charge: ChargeRecord) -> float | None:
    """How long it has waited in the queue before its first run, when that is to be counted."""
    if charge.waited or record.started is None:
        return None
    return max(0.0, record.started - record.created)


def _tasks_of(record: AllocationRecord) -> list[int]:
    """Tasks with something in it; of those not settled, if there are any."""
    parts = [part for pack in record.packs for part in pack.parts]
    open_ = [part for part in parts if not part.settled]
    return sorted({part.task_id for part in open_ or parts})
