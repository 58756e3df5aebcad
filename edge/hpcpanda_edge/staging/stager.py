"""Staging beside the edge's rounds: what is wanted is remembered, done in threads, and answered from memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.site import Site
from hpcpanda.domain.task import TaskSpec
from hpcpanda_edge.staging import inward
from hpcpanda_edge.staging.book import Retry
from hpcpanda_edge.staging.copying import GivenUp
from hpcpanda_edge.staging.places import Destination, input_folder, moved_folder
from hpcpanda_edge.staging.work import Inputs, Moving, Work

_LONGEST_NAP_S: Final = 60.0

MoveKey = tuple[int, str]
"""Task, and path of its merged file in the spool."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """How far the inputs of a task are."""

    ready: IntervalSet
    """Of the events, or jobs, asked about: those whose inputs are in place."""
    waiting: str | None = None
    """Why the others are not ready."""
    fault: str | None = None
    """Why the task cannot be staged here."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """How far the move of an output is."""

    output: OutputFile | None = None
    """The report about it, when it is where it belongs."""
    waiting: str | None = None
    fault: str | None = None


class Stager:
    """Stages inputs in and outputs out, ``limits.staging_streams`` files at a time.

    :meth:`want` and :meth:`want_out` never block; :meth:`run` does the work. Nothing is stored but the files
    themselves: a new process finds the finished copies, and goes on.
    """

    def __init__(self, spool: Spool, site: Site, *, retry: Retry | None = None) -> None:
        self._spool = spool
        self._site = site
        self._retry = retry or Retry()
        self._streams = site.limits.staging_streams
        self._room = inward.Room(spool.path, site.limits.staging_reserve_mb * 2**20)
        self._twins: inward.Twins = {}
        self._inputs: dict[int, Inputs] = {}
        self._moving: dict[MoveKey, Moving] = {}
        self._under_way: set[Work] = set()
        self._served: dict[int, int] = {}
        self._turn = 0
        self._wake = asyncio.Event()

    # ---- asked by the edge's round ----

    def want(self, task_id: int, spec: TaskSpec, needed: IntervalSet) -> Incoming:
        """Have the inputs in place of all unfinished events, or jobs, of a task that are here.

        Args:
            task_id: of the task.
            spec: of the task, as it was submitted.
            needed: all that is leased and not finished, in packs or not: copies of others may be removed.
        """
        if spec.staging.inputs == "in-place" and spec.staging.destination is None:
            return Incoming(needed)
        task = self._inputs.get(task_id)
        if task is None:
            task = self._inputs[task_id] = Inputs.of(
                task_id, spec, self._spool, self._site, retry=self._retry, room=self._room, twins=self._twins
            )
            self._wake.set()
        task.told(spec)
        if task.need(needed):
            self._wake.set()
        if not task.looked:
            return Incoming(EMPTY, waiting=task.trouble or "staging begins", fault=task.book.fault)
        return Incoming(task.book.ready(), waiting=task.book.waiting(), fault=task.book.fault)

    def want_out(self, task_id: int, spec: TaskSpec, output: OutputFile) -> Outgoing:
        """Have a merged file where the user wants it; ``output`` is as the merge has reported it.

        It is not to be reported to the dispatcher, nor merged again, before this gives an output.
        """
        destination = Destination.of(spec, self._site.name, task_id)
        if destination is None:
            return Outgoing(output)
        key = (task_id, output.path)
        task = self._moving.get(key)
        if task is None:
            task = self._moving[key] = Moving.of(
                task_id, spec, output, destination, self._spool, self._site, retry=self._retry
            )
            self._wake.set()
        if task.arrived is not None or task.fault is not None:
            return Outgoing(task.arrived, fault=task.fault)
        return Outgoing(waiting=task.trouble or f"its output is being moved to {destination.folder}")

    async def forget(self, task_id: int) -> None:
        """Give up what is done for a task, and remove its copies; to be called before the task is forgotten.

        Raises:
            OSError: something cannot be removed; call again later.
        """
        self._inputs.pop(task_id, None)
        for key in [key for key in self._moving if key[0] == task_id]:
            del self._moving[key]
        self._served.pop(task_id, None)
        mine = [w for w in self._under_way if w.task_id == task_id]
        for work in mine:
            work.stop.set()
        for work in mine:
            await work.over.wait()
        folder = input_folder(self._spool, task_id)
        inward.forget_twins(self._twins, folder)
        await asyncio.to_thread(inward.remove_all, folder, moved_folder(self._spool, task_id))

    # ---- working ----

    async def run(self) -> None:
        """Copy and move what is wanted, until cancelled."""
        threads = ThreadPoolExecutor(self._streams + 1, thread_name_prefix="staging")
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._wake.clear()
                    now = time.monotonic()
                    while (work := self._next(now)) is not None:
                        self._turn += 1
                        self._served[work.task_id] = self._turn
                        self._under_way.add(work)
                        group.create_task(self._do(threads, work))
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._nap(now)):
                            await self._wake.wait()
        finally:
            await asyncio.to_thread(threads.shutdown)

    async def _do(self, threads: ThreadPoolExecutor, work: Work) -> None:
        """Have a thread do it, and enter what came of it."""
        result: object
        try:
            result = await asyncio.get_running_loop().run_in_executor(threads, work.call, work.stop.is_set)
        except (HpcPandaError, OSError, GivenUp) as problem:
            result = problem
        except asyncio.CancelledError:
            work.stop.set()
            raise
        finally:
            self._under_way.discard(work)
            work.over.set()
            self._wake.set()
        work.then(result, time.monotonic())

    def _next(self, now: float) -> Work | None:
        """The next thing to do, entered as begun; None when there is nothing, or no stream is free."""
        short = any(task.book.short for task in self._inputs.values())
        for task in self._inputs.values():
            work = task.look(now) or task.remove(now, at_once=short)
            if work is not None:
                return work
        copying = [w for w in self._under_way if w.original is not None]
        if len(copying) >= self._streams:
            return None
        moves = sum(w.moves for w in copying)
        if moves < max(1, self._streams - 1):  # a large output must not keep all inputs waiting
            turns = self._by_turn({m.task_id: m.spec for m in self._moving.values()})
            for _, key in sorted((turns.index(key[0]), key) for key in self._moving):
                if (work := self._moving[key].move(now)) is not None:
                    return work
        avoid = {str(w.original) for w in copying}
        for task_id in self._by_turn({n: t.spec for n, t in self._inputs.items()}):
            if (work := self._inputs[task_id].fetch(now, avoid)) is not None:
                return work
        return None

    def _by_turn(self, specs: dict[int, TaskSpec]) -> list[int]:
        """Tasks by priority; those of the same, in turn."""
        return sorted(specs, key=lambda n: (-specs[n].priority, self._served.get(n, 0), n))

    def _nap(self, now: float) -> float:
        """Seconds until something may be due."""
        looks = [t.next_look(now) for t in self._inputs.values()]
        looks += [m.next_look(now) for m in self._moving.values()]
        return max(
            0.01, min((look for look in looks if look is not None), default=now + _LONGEST_NAP_S) - now
        )
