"""Cut a task into jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from hpcpanda.dispatcher.generation.files import Files
from hpcpanda.domain.splitting import Caps, Cut, FileSpan, Greedy, Unit, by_size

PORTION = 10_000
"""Files looked at together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What is cut."""

    events: int
    """Size of the event space."""
    files: Files | None
    """None where there are only events."""
    unit: Unit
    """What a position is the number of."""
    until: int | None = None
    """What is at this position and behind it has come since, and is not cut."""

    @property
    def end(self) -> int:
        """Behind the last position."""
        there = self.files.count if self.unit is Unit.FILES and self.files is not None else self.events
        return there if self.until is None else min(there, self.until)

    def events_in(self, jobs: Jobs) -> float:
        """Events of one of these jobs, in the mean."""
        made = jobs.cut
        return (made.last - made.first) / self.end * self.events / made.jobs

    async def files_from(self, position: int) -> AsyncIterator[Sequence[FileSpan]]:
        """The files from the one with this position on, some at a time."""
        assert self.files is not None
        first, last = position, self.end
        if self.unit is Unit.EVENTS:
            first = (await self.files.files_covering(position, position + 1))[0].ordinal
            last = (await self.files.files_covering(self.end - 1, self.end))[0].ordinal + 1
        for at in range(first, last, PORTION):
            yield await self.files.files_between(at, min(at + PORTION, last))


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """Jobs that were made of what was left."""

    cut: Cut
    bounds: Sequence[int] = ()
    """Position at which each begins; none where their size says so."""
    oversized: int = 0
    """Files that are jobs of their own, since they hold more than a job may."""


async def cut(
    source: Source, caps: Caps, *, first_job: int = 0, position: int = 0, to_end: bool = True
) -> Jobs:
    """Make jobs of what there is from a position on.

    Args:
        source: what is cut.
        caps: what a job may hold.
        first_job: number of the first.
        position: where it begins.
        to_end: nothing will follow; else a last job that could hold more is not made.

    Raises:
        InvalidValue: the size of a file is needed and not known, or is more than a job may read.
        TooLarge: it makes more jobs than can be kept.
    """
    size = caps.size_in(source.unit, of_files=source.files is not None)
    if size is None and source.files is None:
        size = source.end - position
    if size is not None:
        last = source.end if to_end else source.end - (source.end - position) % size
        return Jobs(cut=by_size(source.unit, first_job=first_job, first=position, last=last, size=size))
    greedy = Greedy.beginning(caps, source.unit, position)
    if position < source.end:
        async for portion in source.files_from(position):
            for file in portion:
                greedy.add(file)
    bounds, last = greedy.bounds, source.end
    if bounds and not (to_end or greedy.whole):
        last = bounds.pop()
    made = Cut(unit=source.unit, first_job=first_job, jobs=len(bounds), first=position, last=last)
    return Jobs(cut=made, bounds=bounds, oversized=greedy.oversized)


async def most_events(source: Source, jobs: Jobs) -> int:
    """Events of the largest of these jobs."""
    made = jobs.cut
    if made.unit is Unit.EVENTS:
        if made.size is not None:
            return min(made.size, made.last - made.first)
        ends = (*jobs.bounds[1:], made.last)
        return max(end - first for first, end in zip(jobs.bounds, ends, strict=True))
    most = held = 0
    job = -1
    async for portion in source.files_from(made.first):
        for file in portion:
            number = job
            if made.size is not None:
                number = (file.ordinal - made.first) // made.size
            elif job + 1 < len(jobs.bounds) and jobs.bounds[job + 1] == file.ordinal:
                number = job + 1
            held = held + file.events if number == job else file.events
            job = number
            most = max(most, held)
    return most
