"""What is to be copied for a task, what is there, what failed and when it is tried again. Pure; time is passed in.

A file is named by its :class:`~hpcpanda_edge.staging.places.Source` and the first event, or job, that reads it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda_edge.staging.places import Source

KEPT_S: Final = 600.0
"""A copy that nobody needs any more is kept so long: the next lease may begin in the middle of the same file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When something that failed is tried again."""

    attempts: int = 5
    first_s: float = 5.0
    """Pause after the first failure, seconds."""
    factor: float = 4.0
    """Each pause is so much longer than the one before."""
    longest_s: float = 900.0
    room_s: float = 30.0
    """Time between two looks whether there is room on the disk, seconds."""

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures."""
        return float(min(self.longest_s, self.first_s * self.factor ** min(failures - 1, 20)))


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One file to be copied."""

    first: int
    """First event, or job, that reads it."""
    source: int
    """Number of its source."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a file is not there yet."""

    failures: int
    not_before: float
    error: str
    for_room: bool = False
    """It waits for room on the disk."""


@dataclass(slots=True)
class Book:
    """The copies of one task's inputs."""

    sources: Sequence[Source]
    retry: Retry
    needed: IntervalSet = EMPTY
    """Unfinished events, or jobs, that are here."""
    fault: str | None = None
    """Why its inputs cannot be staged here."""
    troubles: dict[Unit, Trouble] = field(default_factory=dict)
    _present: dict[int, IntervalSet] = field(default_factory=dict)
    _busy: dict[int, IntervalSet] = field(default_factory=dict)
    _unneeded: dict[int, float] = field(default_factory=dict)
    """Since when, by source, the copy of a file is not needed."""

    def need(self, events: IntervalSet) -> None:
        """From now on these events, or jobs, are needed."""
        if events != self.needed:
            self.needed = events
            self.troubles = {u: t for u, t in self.troubles.items() if events & self._span(u)}

    def ready(self) -> IntervalSet:
        """Needed events, or jobs, all of whose inputs are in place."""
        ready = self.needed
        for source in self._read_by(ready):
            if source.each or not self.present(source):
                mine = ready & IntervalSet.span(source.cover.first, source.cover.last)
                ready -= mine - self.present(source)
        return ready

    def present(self, source: Source) -> IntervalSet:
        """Events, or jobs, whose file of this source is in place."""
        return self._present.get(source.number, EMPTY)

    def missing(self) -> int:
        """Number of files that are needed and not in place."""
        count = 0
        for source in self._read_by(self.needed):
            if source.each:
                count += len(source.units(self.needed) - self.present(source))
            else:
                count += not self.present(source)
        return count

    def waiting(self) -> str | None:
        """Why not everything needed is in place, for people; None when it is."""
        count = self.missing()
        if not count:
            return None
        text = f"{count} input {'file is' if count == 1 else 'files are'} still to be copied"
        worst = max(self.troubles.values(), key=lambda t: (t.failures, t.for_room), default=None)
        return f"{text}; {worst.error}" if worst is not None else text

    @property
    def short(self) -> bool:
        """Whether a copy waits for room on the disk."""
        return any(t.for_room for t in self.troubles.values())

    def next(self, now: float, avoid: Container[str] = ()) -> Unit | None:
        """The file to be copied next: that of the lowest event, or job; none whose original is in ``avoid``."""
        if self.fault is not None:
            return None
        waiting: dict[int, IntervalSet] = {}
        for unit, trouble in self.troubles.items():
            if trouble.not_before > now:
                span = self.sources[unit.source].unit(unit.first)
                waiting[unit.source] = waiting.get(unit.source, EMPTY).add(span.first, span.last)
        best: Unit | None = None
        for source in self._read_by(self.needed):
            if not source.each and self.present(source):
                continue
            due = source.units(self.needed) - self.present(source) - self._busy.get(source.number, EMPTY)
            due -= waiting.get(source.number, EMPTY)
            while due:
                unit = Unit(due.bounds[0], source.number)
                if str(source.original(unit.first)) not in avoid:
                    best = min(best or unit, unit)
                    break
                due = due.remove(unit.first, source.unit(unit.first).last)
        return best

    def next_look(self, now: float) -> float | None:
        """When something that failed is due again."""
        return min((t.not_before for t in self.troubles.values() if t.not_before > now), default=None)

    # ---- what happens to files ----

    def found(self, source: Source, events: IntervalSet) -> None:
        """These copies are there already."""
        self._present[source.number] = self.present(source) | events

    def began(self, unit: Unit) -> None:
        """The copy is being made."""
        self._set_busy(unit.source, self._span(unit), busy=True)

    def arrived(self, unit: Unit) -> None:
        """The copy is in place."""
        self._set_busy(unit.source, self._span(unit), busy=False)
        self.troubles.pop(unit, None)
        self.found(self.sources[unit.source], self._span(unit))

    def stopped(self, unit: Unit) -> None:
        """The copy was given up, for no fault of its own."""
        self._set_busy(unit.source, self._span(unit), busy=False)

    def delayed(self, unit: Unit, why: str, now: float) -> None:
        """There is no room for it now; that is no failure."""
        self.stopped(unit)
        known = self.troubles.get(unit)
        self.troubles[unit] = Trouble(
            failures=known.failures if known else 0,
            not_before=now + self.retry.room_s,
            error=why,
            for_room=True,
        )

    def failed(self, unit: Unit, error: str, now: float, *, final: bool = False) -> None:
        """The copy could not be made; ``final``: trying again is of no use."""
        self.stopped(unit)
        known = self.troubles.get(unit)
        failures = (known.failures if known else 0) + 1
        self.troubles[unit] = Trouble(
            failures=failures, not_before=now + self.retry.pause(failures), error=error
        )
        if self.fault is None and (final or failures >= self.retry.attempts):
            times = "" if failures == 1 else f", tried {failures} times"
            self.fault = f"an input cannot be staged{times}: {error}"

    # ---- copies that are not needed any more ----

    def superfluous(self, now: float, *, at_once: bool = False) -> dict[int, IntervalSet]:
        """Copies that can be removed, by source: of jobs that are over at once, files of events after a while.

        ``at_once``: all that are not needed, because room is wanted.
        """
        found: dict[int, IntervalSet] = {}
        for number, present in self._present.items():
            source = self.sources[number]
            if not source.each and self.needed.overlaps(source.cover.first, source.cover.last):
                idle = EMPTY
            else:
                idle = present - self.needed
            if not idle:
                self._unneeded.pop(number, None)
            elif source.each or at_once or now - self._unneeded.setdefault(number, now) >= KEPT_S:
                found[number] = idle
        return found

    def removing(self, source: int, events: IntervalSet) -> None:
        """These copies are being removed."""
        self._present[source] = self._present[source] - events
        self._set_busy(source, events, busy=True)

    def removed(self, source: int, events: IntervalSet) -> None:
        """They are gone."""
        self._set_busy(source, events, busy=False)

    def _read_by(self, events: IntervalSet) -> Iterator[Source]:
        """Sources that some of these read."""
        return (s for s in self.sources if events.overlaps(s.cover.first, s.cover.last))

    def _span(self, unit: Unit) -> IntervalSet:
        span = self.sources[unit.source].unit(unit.first)
        return IntervalSet.span(span.first, span.last)

    def _set_busy(self, source: int, events: IntervalSet, *, busy: bool) -> None:
        before = self._busy.get(source, EMPTY)
        self._busy[source] = before | events if busy else before - events
