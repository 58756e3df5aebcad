"""Bring planned allocations into the batch system, and messages into inboxes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import structlog

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.states import AllocationState
from hpcpanda_edge import files
from hpcpanda_edge.ports import AllocationJob, SchedulerPort
from hpcpanda_edge.quarantine import QuarantineKeeper
from hpcpanda_edge.records import AllocationRecord
from hpcpanda_edge.steps import Steps
from hpcpanda_edge.store import Store

CALL_TIMEOUT_S: Final = 120.0
"""Longest time a call of the batch system may take."""
VOID_WAIT_S: Final = 5.0
"""After a plan was taken away, so long is looked for an allocation that has read it before."""
_LONGEST_PAUSE_S: Final = 300.0

P = ParamSpec("P")
T = TypeVar("T")

_log = structlog.get_logger("hpcpanda.edge")


def head_command(spool: Path, folder: Path) -> tuple[str, ...]:
    """What an allocation runs."""
    return (sys.executable, "-m", "hpcpanda.allocation.head", str(folder), str(spool))


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call of the batch system without holding up the edge. Raises TimeoutError when it takes too long."""
    async with asyncio.timeout(CALL_TIMEOUT_S):
        return await asyncio.to_thread(function, *args, **kwargs)


class Submitter:
    """Hands allocations to the batch system, one at a time.

    It is written down that an allocation is about to be submitted before it is; so after a crash it is known
    which may be in the batch system although their native id is not known.
    """

    def __init__(
        self,
        store: Store,
        steps: Steps,
        spool: Spool,
        scheduler: SchedulerPort,
        quarantine: QuarantineKeeper,
    ) -> None:
        self._store = store
        self._steps = steps
        self._spool = spool
        self._scheduler = scheduler
        self._quarantine = quarantine
        self._refusals = 0
        self.not_before = 0.0
        """Nothing is submitted before, Unix seconds."""
        self.refusal: str | None = None
        """What the batch system said to the last submission, if it refused."""
        self.troubled = False
        """The spool could not be written to at the last try."""

    async def submit_planned(self) -> None:
        """Submit every planned allocation."""
        for record in list(self._store.allocations.values()):
            if record.state is AllocationState.PLANNED and not record.submitting:
                if record.draining or time.time() < self.not_before:
                    continue
                await self._submit(record)

    def write_messages(self) -> None:
        """Leave all messages that have not been left yet."""
        left: list[tuple[str, int]] = []
        for key in sorted(self._store.messages):
            message = self._store.messages[key]
            record = self._store.allocations.get(message.allocation_id)
            if record is None or record.state is AllocationState.CLOSED:
                written = True
            elif record.state is AllocationState.PLANNED and not record.submitting:
                continue
            else:
                written = self._guarded(partial(files.write_inbox, self._spool, message))
            if written:
                left.append(key)
        if left:
            with self._store.transaction():
                for key in left:
                    self._store.messages.drop(key)

    async def resolve_unknown(self) -> None:
        """Find out about allocations that may have been submitted without an answer.

        The plan is taken away first: from then on the allocation cannot start. If nothing of it shows up for a
        while, it has not started before either.
        """
        for record in list(self._store.allocations.values()):
            if record.state is not AllocationState.PLANNED or not record.submitting:
                continue
            folder = self._spool.allocation(record.allocation_id)
            found: str | None = None
            with contextlib.suppress(SchedulerFailed, TimeoutError):
                found = await in_thread(self._scheduler.find, record.allocation_id, folder.path)
            if found is not None:
                _log.info("allocation-found", allocation=record.allocation_id, native_id=found)
                with self._store.transaction():
                    self._steps.submitted(record.allocation_id, found)
            elif folder.status.exists():
                _log.info("allocation-found", allocation=record.allocation_id)
                with self._store.transaction():
                    self._steps.started(record.allocation_id, time.time())
            elif record.voided is None:
                if self._guarded(partial(files.void_plan, self._spool, record.allocation_id)):
                    latest = self._store.allocations[record.allocation_id]
                    with self._store.transaction():
                        self._store.allocations.put(replace(latest, voided=time.time()))
            elif time.time() - record.voided > VOID_WAIT_S:
                _log.info("allocation-never-started", allocation=record.allocation_id)
                with self._store.transaction():
                    self._steps.gone(record.allocation_id)

    async def _submit(self, record: AllocationRecord) -> None:
        record = self._store.allocations[record.allocation_id]
        if record.state is not AllocationState.PLANNED or record.submitting:
            return
        if not self._guarded(partial(files.write_plan, self._spool, record)):
            return
        with self._store.transaction():
            self._store.allocations.put(replace(record, submitting=True))
        folder = self._spool.allocation(record.allocation_id).path
        job = AllocationJob(
            allocation_id=record.allocation_id,
            nodes=record.nodes,
            walltime_s=record.walltime_s,
            command=head_command(self._spool.path, folder),
            folder=folder,
            avoid=() if self._refusals else self._quarantine.avoided(record.nodes, time.time()),
        )
        try:
            native_id = await in_thread(self._scheduler.submit, job)
        except (SchedulerFailed, TimeoutError) as problem:
            self._refusals += 1
            pause_s = min(2.0**self._refusals, _LONGEST_PAUSE_S)
            self.not_before = time.time() + pause_s
            self.refusal = str(problem) or "it did not answer in time"
            _log.warning(
                "submission-failed", allocation=record.allocation_id, error=str(problem), pause_s=pause_s
            )
            return
        self._refusals = 0
        self.refusal = None
        with self._store.transaction():
            self._steps.submitted(record.allocation_id, native_id)
        _log.info(
            "allocation-submitted",
            allocation=record.allocation_id,
            native_id=native_id,
            nodes=record.nodes,
            tasks=sorted({p.task_id for k in record.packs for p in k.parts}),
            why=record.why,
        )

    def _guarded(self, write: Callable[[], None]) -> bool:
        """Write into the spool; gives False when the disk refuses, to be tried again."""
        try:
            write()
        except OSError as problem:
            if not self.troubled:
                _log.error("spool-not-writable", spool=str(self._spool.path), error=str(problem))
            self.troubled = True
            return False
        if self.troubled:
            _log.info("spool-writable-again", spool=str(self._spool.path))
        self.troubled = False
        return True
