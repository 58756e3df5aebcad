"""What the jobs of a task have to do, worked out when they are leased."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

from hpcpanda.dispatcher.generation.cutting import Source
from hpcpanda.dispatcher.store.generation import Made
from hpcpanda.dispatcher.store.pieces import pieces_in
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.intervals import EventRange, IntervalSet
from hpcpanda.domain.splitting import Cut, FileSpan, Piece, Unit

MAX_TOLD_JOBS = 1000
"""Most jobs in one lease of a task that is cut."""
MAX_TOLD_FILES = 20_000
"""About the most files told of with one lease."""
MAX_TOLD_PIECES = 200
"""Most jobs in one lease of a task of files of which some were split: the files of each piece are looked up."""
WINDOW = 5000
"""So many jobs whose boundaries are kept are looked up together."""

Span = tuple[int, int]


async def pieces_of(
    uow: UnitOfWork, task_id: int, source: Source, made: Made, jobs: IntervalSet
) -> list[Piece]:
    """What each of these jobs holds, in their order.

    Expects jobs that are cut, and some thousands of them at most.
    """
    found: list[Piece] = []
    split = await _split(uow, task_id, made, jobs)
    for part in jobs.ranges():
        for cut in made.plan:
            first, last = max(part.first, cut.first_job), min(part.last, cut.end_job)
            if first >= last:
                continue
            if cut.of_pieces:
                found += [await _piece(source, cut.unit, job, split[job]) for job in range(first, last)]
                continue
            spans = await _spans(uow, task_id, cut, first, last)
            files = await _files(source, cut.unit, spans[first][0], spans[last - 1][1])
            now = {job: split.get(job, span) for job, span in spans.items()}
            found += _cut(cut.unit, now, files)
    return found


async def spans_of(uow: UnitOfWork, task_id: int, made: Made, jobs: IntervalSet) -> dict[int, Span]:
    """First position, and that behind the last, of each of these jobs."""
    found: dict[int, Span] = {}
    for cut in made.plan:
        mine = jobs & IntervalSet.span(cut.first_job, cut.end_job)
        for first, last in _windows(mine) if not cut.of_pieces else ():
            spans = await _spans(uow, task_id, cut, first, last)
            found |= {job: spans[job] for part in mine.ranges() for job in range(*_within(part, first, last))}
    return found | await _split(uow, task_id, made, jobs)


def most_told(source: Source, made: Made) -> int:
    """How many jobs one lease may have, so that what is told with it stays small."""
    if source.files is None or not made.jobs:
        return MAX_TOLD_JOBS
    files = source.files.count / made.jobs
    most = MAX_TOLD_PIECES if pieces_in(made) else MAX_TOLD_JOBS
    return max(1, min(most, int(MAX_TOLD_FILES / files)))


async def _split(uow: UnitOfWork, task_id: int, made: Made, jobs: IntervalSet) -> dict[int, Span]:
    """What those of the jobs have that were split, or came of that; most tasks have none, and nothing is looked up."""
    return await uow.pieces.of(task_id, jobs) if jobs and pieces_in(made) else {}


async def _piece(source: Source, unit: Unit, job: int, span: Span) -> Piece:
    return Piece.of(job, unit, span, await _files(source, unit, *span))


def _windows(jobs: IntervalSet) -> Iterator[Span]:
    """Stretches that hold all of the jobs, few of them and none long."""
    at: Span | None = None
    for part in jobs.ranges():
        if at is not None and part.last - at[0] <= WINDOW:
            at = at[0], part.last
            continue
        if at is not None:
            yield at
        at = part.first, part.last
    if at is not None:
        yield at


def _within(part: EventRange, first: int, last: int) -> Span:
    return max(part.first, first), max(part.first, first, min(part.last, last))


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
