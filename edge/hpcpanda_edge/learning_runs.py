"""What the edge learns from the lives of its allocations: waits, start-ups, node-hours held, preemptions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.domain.site import Site
from hpcpanda.domain.states import AllocationState
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda_edge.cut_short import cut_short
from hpcpanda_edge.records import AllocationRecord

EXPOSURE_S: Final = 10.0
"""Node-hours held are counted so often, and when an allocation ends."""


@dataclass(slots=True)
class _Run:
    """One run of an allocation as the edge has followed it."""

    record: AllocationRecord
    """As last seen."""
    held_until: float
    """Up to then its nodes are counted as held."""
    begun: float | None = None
    """When it began, as well as that is known; None where nobody looked."""
    busy: bool = False
    """Something has run in it."""
    life: int | None = None
    """Of the head that was heard in this run; None before."""
    status: AllocationStatus | None = None
    """What its head last said."""
    ended: float | None = None
    """When it was seen to be out of the batch system; its head's last word may be read later."""


class Runs:
    """Follows allocations, and learns by comparing what is with what was.

    What happened while no edge ran is not learnt: nobody saw when.
    """

    def __init__(self, knowledge: Knowledge, site: Site) -> None:
        self._knowledge = knowledge
        self._site = site
        self._partition = site.scheduler.queue or ""
        self._runs: dict[str, _Run] | None = None
        self._learnt = False

    def look(
        self,
        records: Mapping[str, AllocationRecord],
        statuses: Mapping[str, AllocationStatus],
        now: float,
    ) -> bool:
        """Learn from what has become of allocations since the last look; the first one only remembers them.

        Gives whether there was something to learn.
        """
        self._learnt = False
        first, runs = self._runs is None, self._runs or {}
        after: dict[str, _Run] = {}
        for name, record in records.items():
            if record.state is AllocationState.CLOSED and name not in runs:
                continue
            run = runs.get(name)
            if run is None:
                planned = replace(record, state=AllocationState.PLANNED, started=None, life=-1)
                life = record.life if first and record.life >= 0 else None
                run = _Run(record=record if first else planned, held_until=now, life=life)
            self._compare(run, record, now)
            self._hear(run, statuses.get(name))
            if record.state is AllocationState.CLOSED:
                self._judge(run)
            else:
                after[name] = run
        self._runs = after
        return self._learnt

    def _compare(self, run: _Run, record: AllocationRecord, now: float) -> None:
        """Learn from what has become of an allocation."""
        before, run.record = run.record, record
        again = run.life is not None and record.life > run.life
        running = record.state is AllocationState.RUNNING and record.started is not None
        if before.started is None and running and record.started is not None:
            run.begun, run.held_until, run.busy, run.life = record.started, record.started, False, None
            if before.life < 0:
                self._left_queue(before, record.started - before.created, now, started=True)
        elif before.started is not None and (again or record.state is AllocationState.QUEUED):
            self._held(run, before, now, least=0.0)
            self._lost(now)
            run.begun, run.held_until, run.busy = record.started, now, False
            run.status = None
        elif before.state is AllocationState.RUNNING and not running:
            self._held(run, before, now, least=0.0)
            run.ended = now
        elif running:
            self._held(run, record, now, least=EXPOSURE_S)
        elif _waited(before) and record.state in (AllocationState.ENDED, AllocationState.CLOSED):
            self._left_queue(before, now - before.created, now, started=False)
        if record.life > before.life:
            run.life = record.life

    def _left_queue(self, record: AllocationRecord, queued_s: float, now: float, *, started: bool) -> None:
        """A request for a backfill window is no measure of the queue: it was to start at once."""
        if not record.in_window:
            self._knowledge.saw_allocation(record.nodes, record.walltime_s, queued_s, now, started=started)
            self._learnt = True

    def _held(self, run: _Run, record: AllocationRecord, now: float, *, least: float) -> None:
        if now - run.held_until > least:
            self._knowledge.saw_held(record.nodes, run.held_until, now, self._partition)
            run.held_until = now
            self._learnt = True

    def _judge(self, run: _Run) -> None:
        if run.ended is not None and cut_short(run.record, run.status, self._site, until=run.ended):
            self._lost(run.ended)

    def _lost(self, at: float) -> None:
        self._knowledge.saw_preemption(at, self._partition)
        self._learnt = True

    def _hear(self, run: _Run, status: AllocationStatus | None) -> None:
        """Learn from a head how long it took to begin."""
        if status is None or run.status is status:
            return
        run.status = status
        if run.begun is None or run.busy:
            return
        if any(p.cores_busy > 0 or p.done for p in status.packs):
            run.busy = True
            if run.begun <= status.written:
                self._knowledge.saw_start_up(status.written - run.begun, status.written)
                self._learnt = True
        else:
            run.begun = min(run.begun, status.written)


def _waited(record: AllocationRecord) -> bool:
    """Whether the batch system had it, and it has never run."""
    return record.state is AllocationState.QUEUED and record.native_id is not None and record.life < 0
