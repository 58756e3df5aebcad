"""What the jobs of a task have to do, worked out when they are leased."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

from hpcpanda.dispatcher.generation.cutting import Source
from hpcpanda.dispatcher.store.generation import Made
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.splitting import Cut, FileSpan, Piece, Unit

MAX_TOLD_JOBS = 1000
"""Most jobs in one lease of a task that is cut."""
MAX_TOLD_FILES = 20_000
"""About the most files told of with one lease."""

Span = tuple[int, int]


async def pieces_of(
    uow: UnitOfWork, task_id: int, source: Source, made: Made, jobs: IntervalSet
) -> list[Piece]:
    """What each of these jobs holds, in their order.

    Expects jobs that are cut, and some thousands of them at most.
    """
    found: list[Piece] = []
    for part in jobs.ranges():
        for cut in made.plan:
            first, last = max(part.first, cut.first_job), min(part.last, cut.end_job)
            if first < last:
                spans = await _spans(uow, task_id, cut, first, last)
                files = await _files(source, cut.unit, spans[first][0], spans[last - 1][1])
                found += _cut(cut.unit, spans, files)
    return found


def most_told(source: Source, made: Made) -> int:
    """How many jobs one lease may have, so that what is told with it stays small."""
    if source.files is None or not made.jobs:
        return MAX_TOLD_JOBS
    files = source.files.count / made.jobs
    return max(1, min(MAX_TOLD_JOBS, int(MAX_TOLD_FILES / files)))


async def _spans(uow: UnitOfWork, task_id: int, cut: Cut, first: int, last: int) -> Mapping[int, Span]:
    if cut.size is not None:
        return {job: cut.span_of(job) for job in range(first, last)}
    return await uow.generation.bounds(task_id, first, last)


async def _files(source: Source, unit: Unit, first: int, last: int) -> Sequence[FileSpan]:
    if source.files is None:
        return ()
    if unit is Unit.FILES:
        return await source.files.files_between(first, last)
    return await source.files.files_covering(first, last)


def _cut(unit: Unit, spans: Mapping[int, Span], files: Sequence[FileSpan]) -> Iterator[Piece]:
    """Jobs that follow each other, over their files, which do so, too."""
    ends = [file.first_event + file.events for file in files]
    starts = [file.first_event for file in files]
    for job, (first, last) in spans.items():
        if unit is Unit.FILES:
            base = files[0].ordinal
            mine = files[first - base : last - base]
        else:
            mine = files[bisect_right(ends, first) : bisect_left(starts, last)]
        yield Piece.of(job, unit, (first, last), mine)
