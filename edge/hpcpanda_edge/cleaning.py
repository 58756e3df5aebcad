"""Cleaning up: forget tasks that are final, with their journals and segments, and the folders of old allocations."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.states import AllocationState, TaskState
from hpcpanda_edge import accounts, files
from hpcpanda_edge.journal_names import JournalName
from hpcpanda_edge.merge_work import outputs_of
from hpcpanda_edge.present_runs import PresentRuns
from hpcpanda_edge.records import OutputState
from hpcpanda_edge.staging import Stager
from hpcpanda_edge.store import Store

KEPT_ALLOCATIONS: Final = 50
"""Folders of so many closed allocations are kept, for their logs."""

_log = structlog.get_logger("hpcpanda.edge")


class Cleaning:
    """Forgets what is of no use any more, in the store and in the spool."""

    def __init__(self, store: Store, spool: Spool, stager: Stager, runs: PresentRuns) -> None:
        self._store = store
        self._spool = spool
        self._stager = stager
        self._runs = runs

    async def clean_up(self) -> None:
        """Forget all that can be now; what cannot be deleted is tried again."""
        for task in list(self._store.tasks.values()):
            if task.state.final and not self._in_use(task.task_id):
                await self._forget_task(task.task_id)
        closed = [r for r in self._store.allocations.values() if r.state is AllocationState.CLOSED]
        for record in closed:
            self._runs.statuses.pop(record.allocation_id, None)
        surplus = len(closed) - KEPT_ALLOCATIONS
        if surplus <= 0:
            return
        needed = {p.allocation_id for _, name in self._store.journals if (p := JournalName.parse(name))}
        old = sorted((r for r in closed if r.allocation_id not in needed), key=lambda r: r.created)
        for record in old[:surplus]:
            await asyncio.to_thread(files.remove_allocation, self._spool, record.allocation_id)
            with self._store.transaction():
                self._store.allocations.drop(record.allocation_id)

    def _in_use(self, task_id: int) -> bool:
        """Whether something of a final task may still be written, or has to be said."""
        task = self._store.tasks[task_id]
        unread = task.state in (TaskState.DONE, TaskState.FINISHED) and any(
            record.state is not OutputState.RECORDED for record in outputs_of(self._store, task_id)
        )
        said = any(c.commit.task_id == task_id for c in self._store.commits.values())
        return unread or said or accounts.in_packs(self._store, task_id)

    async def _forget_task(self, task_id: int) -> None:
        try:
            await self._stager.forget(task_id)
            await asyncio.to_thread(files.remove_task, self._spool, task_id)
        except OSError as problem:
            _log.warning("clean-up-failed", task=task_id, error=str(problem))
            return
        if not self._store.tasks[task_id].state.final:
            return  # it is tried again
        with self._store.transaction():
            for key in [key for key in self._store.journals if key[0] == task_id]:
                self._store.journals.drop(key)
            for lease in accounts.leases_of(self._store, task_id):
                self._store.leases.drop(lease.key)
                self._store.slices.drop(lease.key)
            for record in outputs_of(self._store, task_id):
                self._store.outputs.drop(record.key)
            self._store.tasks.drop(task_id)
        _log.info("task-cleaned-up", task=task_id)
