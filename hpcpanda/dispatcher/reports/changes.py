"""Tells those who listen that tasks have changed, at this replica and at others.

A transaction says only which tasks it has written. Twice a second, what was written is looked up once for all who
listen, and put before each as far as they see it. A listener holds one signal a task at most, the newest: one that
reads slowly misses nothing but steps on the way, and one that does not read at all is cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import structlog

from hpcpanda.dispatcher.clock import Clock
from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.reports.metrics import Metrics
from hpcpanda.dispatcher.reports.news import News
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.dispatcher.wire import MAX_NOTE, NoWire, Wire
from hpcpanda.domain.changes import Change
from hpcpanda.domain.errors import HpcPandaError, TooManyRequests

CHANNEL = "changes"
"""Of the notes that name tasks written at other replicas."""
GATHER_SECONDS = 0.5
"""Changes are told together, so often."""
SLACK_SECONDS = 30.0
"""A transaction may become visible so long after the time it was given: who resumes is told as much again."""
MAX_AGAIN = 1000
"""Most tasks told of to one who resumes; when there are more, they are to look at everything."""
MAX_HELD = 2000
"""Most signals that wait for a listener."""
MAX_DIRTY = 5000
"""Most tasks looked up at once; when more have changed, everybody is to look at everything."""
MAX_STREAMS = 1000
MAX_STREAMS_EACH = 20
"""Most streams, of all callers and of one."""
RETRY_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class Listener:
    """One stream: what is to be told next."""

    def __init__(self, sight: Sight | None, wanted: frozenset[int] | None) -> None:
        self.sight = sight
        self.wanted = wanted
        """Only these tasks; all when None."""
        self.ended = False
        """The stream is over."""
        self.cut = False
        """It is over since nobody has read it."""
        self.any = asyncio.Event()
        """There is something to take, or the end."""
        self._held: dict[int, Change] = {}
        self._all = False

    def put(self, changes: Collection[Change]) -> None:
        """Have some told; a later signal of a task takes the place of the one before."""
        for change in changes:
            self._held.pop(change.task_id, None)
            self._held[change.task_id] = change
        if len(self._held) > MAX_HELD:
            self.cut = True
            self.end()
        elif self._held:
            self.any.set()

    def put_all(self) -> None:
        """Have it told that anything may have changed."""
        self._all = True
        self.any.set()

    def end(self) -> None:
        """End the stream."""
        self.ended = True
        self.any.set()

    def take(self) -> tuple[list[Change], bool]:
        """What is to be told now, and whether anything else may have changed."""
        held, everything = list(self._held.values()), self._all
        self._held, self._all = {}, False
        if not self.ended:
            self.any.clear()
        return held, everything


class Changes:
    """All listeners of a dispatcher."""

    def __init__(self, reading: Callable[[], UnitOfWork], clock: Clock, metrics: Metrics) -> None:
        self._reading = reading
        self._clock = clock
        self._metrics = metrics
        self._listeners: dict[Listener, str] = {}
        self._dirty: set[int] = set()
        self._unsaid: set[int] = set()
        """Written here; the other replicas have not been told."""
        self._everything = False
        self._any = asyncio.Event()
        self._wire: Wire = NoWire()
        self._closed = False

    def join(self, wire: Wire) -> None:
        """Hear of what is written at other replicas, and let them hear of what is written here."""
        self._wire = wire
        wire.listen(CHANNEL, self._heard)

    def told(self, news: News) -> None:
        """A transaction has written tasks."""
        if news.tasks:
            self._unsaid |= news.tasks
            self._note(news.tasks)

    def close(self) -> None:
        """End all streams; there are no new ones."""
        self._closed = True
        for listener in self._listeners:
            listener.end()

    @contextmanager
    def listening(
        self, who: str, *, sight: Sight | None, wanted: frozenset[int] | None
    ) -> Iterator[Listener]:
        """A stream of somebody, until the block ends.

        Raises:
            TooManyRequests: there are too many streams, of all or of this caller.
        """
        mine = sum(other == who for other in self._listeners.values())
        if mine >= MAX_STREAMS_EACH or len(self._listeners) >= MAX_STREAMS:
            raise TooManyRequests(
                f"{who} has {mine} change streams open here, of {len(self._listeners)} in all; close some",
                retry_after_s=5.0,
            )
        listener = Listener(sight, wanted)
        if self._closed:
            listener.end()
        self._listeners[listener] = who
        self._metrics.change_clients.set(len(self._listeners))
        try:
            yield listener
        finally:
            del self._listeners[listener]
            self._metrics.change_clients.set(len(self._listeners))
            if listener.cut:
                self._metrics.change_cut.inc()

    async def begin(self, listener: Listener, since: float | None) -> float:
        """Put before a new listener what has changed since, and the tasks that it asked for; gives the time from which
        it can resume. When too much has, or the time is 0 (which is: not known), they are to look at everything."""
        now = self._clock()
        async with self._reading() as uow:
            again: dict[int, Change] = {}
            if since:
                again = await uow.changes.since(since - SLACK_SECONDS, listener.sight, limit=MAX_AGAIN + 1)
            if listener.wanted is not None:
                seen = await uow.changes.seen(listener.wanted, listener.sight)
                again = await uow.changes.of(seen)
        if len(again) > MAX_AGAIN or (since == 0.0 and listener.wanted is None):
            listener.put_all()
        else:
            listener.put(again.values())
        return now

    async def run(self) -> None:
        """Tell of changes, for ever."""
        while True:
            await self._any.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._any.clear()
            self._tell_others()
            dirty, self._dirty = self._dirty, set()
            everything, self._everything = self._everything, False
            if not self._listeners:
                continue
            try:
                await self._spread(dirty, everything)
            except HpcPandaError as problem:
                _log.warning("changes.not-told", error=str(problem))
                self._everything = self._everything or everything
                await asyncio.sleep(RETRY_SECONDS)
                self._note(dirty)

    async def _spread(self, dirty: set[int], everything: bool) -> None:  # noqa: FBT001 - no flag of a caller's choice
        if everything or len(dirty) > MAX_DIRTY:
            for listener in self._listeners:
                listener.put_all()
            return
        wanted = [listener.wanted for listener in self._listeners]
        if None not in wanted:
            dirty &= frozenset().union(*(few for few in wanted if few is not None))
        async with self._reading() as uow:
            changes = await uow.changes.of(dirty)
            sights = {listener.sight for listener in self._listeners}
            seen = {sight: await uow.changes.seen(changes, sight) for sight in sights}
        for listener in self._listeners:
            theirs = seen.get(listener.sight, set())
            if listener.wanted is not None:
                theirs = theirs & listener.wanted
            mine = [change for task_id, change in changes.items() if task_id in theirs]
            self._metrics.change_signals.inc(len(mine))
            listener.put(mine)

    def _note(self, task_ids: Collection[int]) -> None:
        if len(self._dirty) <= MAX_DIRTY:
            self._dirty.update(task_ids)
        self._any.set()

    def _heard(self, text: str) -> None:
        """Another replica has written tasks; an empty text says that some may have been missed."""
        if not text:
            self._everything = True
            self._any.set()
        else:
            self._note([int(word) for word in text.split() if word.isascii() and word.isdigit()])

    def _tell_others(self) -> None:
        unsaid, self._unsaid = self._unsaid, set()
        text = " ".join(map(str, sorted(unsaid)))
        if unsaid:
            self._wire.send(CHANNEL, text if len(text) <= MAX_NOTE else "")
