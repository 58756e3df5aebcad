"""A task whose files are staged: what is to be done next for it, and what becomes of that."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal

import structlog

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import Conflict, InvalidValue
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.site import Site
from hpcpanda.domain.task import TaskSpec
from hpcpanda_edge.input_files import reads_dataset
from hpcpanda_edge.staging import inward, outward
from hpcpanda_edge.staging.book import Book, Retry, Unit
from hpcpanda_edge.staging.copying import GivenUp, Identity, Stopped, is_full
from hpcpanda_edge.staging.places import Destination, input_folder, moved_folder, sources

_CLEAN_EVERY_S: Final = 30.0
"""Copies that have become old are looked for so often."""

_log = structlog.get_logger("hpcpanda.edge")


@dataclass(slots=True, eq=False)
class Work:
    """Something that a thread does, and what is entered afterwards."""

    task_id: int
    call: Callable[[Stopped], object]
    then: Callable[[object, float], None]
    """Told the result, or the error that was raised, and the time."""
    original: Path | None = None
    """What is copied; None when nothing is."""
    moves: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, eq=False)
class Inputs:
    """A task whose inputs, or destination, are looked after from its start."""

    task_id: int
    spec: TaskSpec
    folder: Path
    spool: Spool
    site: Site
    book: Book
    room: inward.Room
    twins: inward.Twins
    trouble: str | None = None
    _state: Literal["new", "looking", "looked"] = "new"
    _look_after: float = 0.0
    _clean_after: float = 0.0

    @classmethod
    def of(
        cls,
        task_id: int,
        spec: TaskSpec,
        spool: Spool,
        site: Site,
        *,
        retry: Retry,
        room: inward.Room,
        twins: inward.Twins,
    ) -> Inputs:
        """Of a task that nothing is known about yet."""
        folder, book = input_folder(spool, task_id), Book(sources(spec), retry)
        return cls(task_id, spec, folder, spool, site, book, room, twins)

    @property
    def looked(self) -> bool:
        """Whether it is known what is there."""
        return self._state == "looked"

    def told(self, spec: TaskSpec) -> None:
        """What the task is now: of a dataset, files may have come."""
        if spec is self.spec or not reads_dataset(spec):
            return
        self.spec = spec
        known = {source.cover.first for source in self.book.sources}
        new = [source for source in sources(spec) if source.cover.first not in known]
        count = len(self.book.sources)
        self.book.sources = (*self.book.sources, *(replace(s, number=count + n) for n, s in enumerate(new)))

    def need(self, events: IntervalSet) -> bool:
        """From now on these events, or jobs, are needed; tells whether that is new."""
        if events == self.book.needed:
            return False
        self.book.need(events)
        self._clean_after = 0.0
        return True

    def next_look(self, now: float) -> float | None:
        """When something may be due again."""
        if self._state == "new" and self.book.fault is None and self._look_after > now:
            return self._look_after
        return self.book.next_look(now)

    # ---- what is there already ----

    def look(self, now: float) -> Work | None:
        """See what is there, once."""
        if self._state != "new" or now < self._look_after or self.book.fault is not None:
            return None
        self._state = "looking"
        return Work(self.task_id, self._look, self._has_looked)

    def _look(self, _: Stopped) -> dict[int, IntervalSet]:
        destination = Destination.of(self.spec, self.site.name, self.task_id)
        if destination is not None:
            outward.check_destination(destination, self.spool.path)
            file = self.spec.output.file
            moved = moved_folder(self.spool, self.task_id).exists()
            several = self.spec.output.max_events is not None  # nobody knows their names yet
            if not several and not moved and not (self.spool.output(self.task_id) / file).exists():
                outward.require_free(destination, file)
        return inward.look(self.folder, self.book.sources)

    def _has_looked(self, result: object, now: float) -> None:
        if isinstance(result, dict):
            self._state = "looked"
            for source in self.book.sources:
                self.book.found(source, result[source.number])
            return
        self._state = "new"
        if isinstance(result, InvalidValue):
            self.book.fault = str(result)
            return
        self.trouble = said(result)
        self._look_after = now + self.book.retry.room_s
        _log.warning("staging-delayed", task=self.task_id, error=self.trouble)

    # ---- copies ----

    def fetch(self, now: float, avoid: Container[str]) -> Work | None:
        """Make the copy that is due next."""
        unit = self.book.next(now, avoid) if self.looked else None
        if unit is None:
            return None
        source = self.book.sources[unit.source]
        original, copy = source.original(unit.first), source.copy(self.folder, unit.first)
        order = inward.Fetch(
            original=original,
            copy=copy,
            unfinished=source.unfinished(self.folder, unit.first),
            size=source.size,
            checksum=source.checksum,
            twins=tuple(self.twins.get(original, {}).items()),
        )
        self.book.began(unit)
        return Work(
            self.task_id,
            partial(inward.fetch, order, self.room),
            partial(self._has_fetched, unit, order),
            original=original,
        )

    def _has_fetched(self, unit: Unit, order: inward.Fetch, result: object, now: float) -> None:
        match result:
            case Identity():
                self.book.arrived(unit)
                self.twins.setdefault(order.original, {})[order.copy] = result
                _log.debug("staged-in", task=self.task_id, file=str(order.original), size=result.size)
            case GivenUp():
                self.book.stopped(unit)
            case _ if is_full(result):
                self.book.delayed(unit, said(result), now)
                _log.info("staging-delayed", task=self.task_id, error=said(result))
            case _:
                error = said(result)
                self.book.failed(unit, error, now, final=isinstance(result, InvalidValue))
                _log.warning("staging-failed", task=self.task_id, error=error)

    def remove(self, now: float, *, at_once: bool) -> Work | None:
        """Remove copies that are not needed any more; ``at_once``: room is wanted."""
        if now < self._clean_after and not at_once:
            return None
        for number, events in self.book.superfluous(now, at_once=at_once).items():
            self.book.removing(number, events)
            return Work(
                self.task_id,
                partial(inward.remove, self.folder, self.book.sources[number], events),
                partial(self._has_removed, number, events),
            )
        self._clean_after = now + _CLEAN_EVERY_S
        return None

    def _has_removed(self, number: int, events: IntervalSet, result: object, _: float) -> None:
        self.book.removed(number, events)
        if result is not None:
            _log.warning("staging-clean-up-failed", task=self.task_id, error=said(result))


@dataclass(slots=True, eq=False)
class Moving:
    """A task whose output is being moved."""

    task_id: int
    spec: TaskSpec
    order: outward.Move
    retry: Retry
    arrived: OutputFile | None = None
    fault: str | None = None
    trouble: str | None = None
    _failures: int = 0
    _not_before: float = 0.0
    _under_way: bool = False

    @classmethod
    def of(
        cls,
        task_id: int,
        spec: TaskSpec,
        output: OutputFile,
        destination: Destination,
        spool: Spool,
        site: Site,
        *,
        retry: Retry,
    ) -> Moving:
        """Of a task with a merged file."""
        order = outward.Move(
            output=output,
            folder=spool.output(task_id),
            marker=moved_folder(spool, task_id),
            destination=destination,
            tag=outward.tag_of(site.name, task_id),
            one_of_several=spec.output.max_events is not None,
        )
        return cls(task_id, spec, order, retry)

    def next_look(self, now: float) -> float | None:
        """When it may be tried again."""
        return self._not_before if self._not_before > now and self.arrived is None else None

    def move(self, now: float) -> Work | None:
        """Move it, when that is due."""
        over = self.arrived is not None or self.fault is not None
        if over or self._under_way or now < self._not_before:
            return None
        self._under_way = True
        return Work(
            self.task_id,
            partial(outward.move, self.order),
            self._has_moved,
            original=Path(self.order.output.path),
            moves=True,
        )

    def _has_moved(self, result: object, now: float) -> None:
        self._under_way = False
        match result:
            case OutputFile():
                self.arrived = result
                _log.info("staged-out", task=self.task_id, file=result.path)
            case GivenUp():
                pass
            case Conflict() | InvalidValue():
                self.fault = f"its output cannot be moved: {result}"
                _log.warning("staging-failed", task=self.task_id, error=str(result))
            case _:
                self._failures += not is_full(result)
                pause = self.retry.room_s if is_full(result) else self.retry.pause(self._failures)
                self._not_before = now + pause
                self.trouble = f"its output cannot be moved yet: {said(result)}"
                _log.warning("staging-delayed", task=self.task_id, error=self.trouble)


def said(problem: object) -> str:
    """An error in words: what, and where."""
    if not isinstance(problem, OSError) or problem.filename is None:
        return problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
    where = f"{problem.filename} -> {problem.filename2}" if problem.filename2 else problem.filename
    return f"{where}: {problem.strerror}"
