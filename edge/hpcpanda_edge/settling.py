"""Read what journals newly say and enter it; settle the parts, packs and allocations that are over."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import structlog

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.states import AllocationState
from hpcpanda_edge import accounts, files
from hpcpanda_edge.files import Collected, PackJournals
from hpcpanda_edge.heads import packs_ended
from hpcpanda_edge.learning import Learner
from hpcpanda_edge.measuring import Measures, measures_of
from hpcpanda_edge.present_runs import PartKey, PresentRuns
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store
from hpcpanda_edge.view import pack_status

_WITH_JOURNALS = (AllocationState.QUEUED, AllocationState.RUNNING, AllocationState.ENDED)

_log = structlog.get_logger("hpcpanda.edge")


class Settling:
    """Brings in what packs have finished. Nothing is settled before its journals are read to their end."""

    def __init__(self, store: Store, steps: Steps, spool: Spool, learner: Learner, runs: PresentRuns) -> None:
        self._store = store
        self._steps = steps
        self._spool = spool
        self._learner = learner
        self._runs = runs

    async def look(self, over: set[PartKey]) -> None:
        """Read journals, enter what they newly say, and settle what is over."""
        found = Collected()
        if wanted := self._wanted(over):
            known = dict(self._store.journals)
            found = await asyncio.to_thread(files.collect, self._spool, wanted, known)
        for error in found.errors:
            _log.warning("journal-trouble", error=error)
        reports = await asyncio.to_thread(self._learner.reports_of, found) if found.journals else []
        measures: Measures = {}
        if found.journals:
            measures = await asyncio.to_thread(measures_of, self._spool, self._store, found)
        ended = await self._with_timelines()
        settling = over - found.troubled
        ended_packs = packs_ended(self._store, self._runs.statuses, settling)
        if not (found.journals or found.broken or over or ended or ended_packs):
            return
        with self._store.transaction():
            self._enter(found, measures)
            for key in sorted(settling):
                self._settle(key)
            for allocation_id, pack_id in ended_packs:
                self._steps.pack_ended(allocation_id, pack_id)
            for allocation_id in ended:
                self._close_if_settled(allocation_id)
        self._learner.saw(found, reports, time.time())

    def _wanted(self, over: set[PartKey]) -> list[PackJournals]:
        """The journals to look at: of every part that is not settled, but of merges."""
        wanted: list[PackJournals] = []
        for record in self._store.allocations.values():
            if record.state not in _WITH_JOURNALS:
                continue
            for pack in record.packs:
                parts = pack.open_parts
                if pack.kind == "merge" or not parts:
                    continue
                said = pack_status(self._runs.statuses.get(record.allocation_id), pack.pack_id)
                wanted += [
                    PackJournals(
                        task_id=part.task_id,
                        allocation_id=record.allocation_id,
                        pack_id=pack.pack_id,
                        incarnation=said.incarnation if said is not None else 0,
                        over=(record.allocation_id, pack.pack_id, part.task_id) in over,
                    )
                    for part in parts
                ]
        return wanted

    async def _with_timelines(self) -> set[str]:
        """Allocations that have ended; what their cores did is written down before journals can go."""
        records = self._store.allocations.values()
        ended = {r.allocation_id for r in records if r.state is AllocationState.ENDED}
        for allocation_id in ended:
            try:
                await asyncio.to_thread(files.keep_timeline, self._spool, allocation_id)
            except OSError as problem:
                _log.warning("timeline-not-written", allocation=allocation_id, error=str(problem))
        return ended

    def _enter(self, found: Collected, measures: Measures) -> None:
        for read in found.journals:
            name = read.name
            record = self._store.journals.get(read.record.key, read.record)
            if accepted := accounts.accept(self._store, record, name.holder, read.part, measures):
                self._steps.accepted(name.allocation_id, name.pack_id, record.task_id, accepted)
        for record in found.broken:
            latest = self._store.journals.get(record.key, record)
            self._store.journals.put(replace(latest, closed=True))

    def _settle(self, key: PartKey) -> None:
        allocation_id, pack_id, task_id = key
        status = self._runs.statuses.get(allocation_id)
        said = pack_status(status, pack_id)
        late = status is not None and said is None
        released = self._steps.settle(allocation_id, pack_id, task_id, said, time.time(), late=late)
        self._runs.over.pop(key, None)
        error = said.error if said is not None else None
        _log.info(
            "work-ended", allocation=allocation_id, pack=pack_id, task=task_id, released=released, error=error
        )

    def _close_if_settled(self, allocation_id: str) -> None:
        if all(p.settled for p in self._store.allocations[allocation_id].packs):
            _log.info("allocation-closed", allocation=allocation_id)
            self._steps.close(allocation_id)
