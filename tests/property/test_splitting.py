"""How tasks are cut into jobs, whatever the files and limits: nothing is lost, doubled, or over its limit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpcpanda.dispatcher.generation.cutting import Jobs, Source, cut, most_events
from hpcpanda.dispatcher.generation.files import InlineFiles
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.listed_cut import cut_listed
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.scouting import (
    Costs,
    JobMeasure,
    caps_of,
    costs,
    enough_back,
    guessed_costs,
    request_of,
    scout_caps,
)
from hpcpanda.domain.splitting import Caps, FileSpan, JobSplit, Piece, Unit
from hpcpanda.domain.task import TaskSpec

_FILES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 1000)), min_size=1, max_size=40)
_SOME = st.none() | st.integers(1, 60)
_LIMIT = st.none() | st.integers(1, 10_000)


def _inputs(sizes: list[tuple[int, int]]) -> InlineFiles:
    files = (InputFile(path=f"/d/{n}.root", events=e, size=s) for n, (e, s) in enumerate(sizes))
    return InlineFiles(Inputs(format=InputFormat.ROOT, container="t", files=tuple(files)))


def _pieces(source: Source, jobs: Jobs) -> list[Piece]:
    """All jobs, each with just the files that the database would be asked for."""
    made = jobs.cut
    starts = [*jobs.bounds, made.last]
    found = []
    for n in range(made.jobs):
        first, last = (
            made.span_of(made.first_job + n) if made.size is not None else (starts[n], starts[n + 1])
        )
        files: list[FileSpan] = []
        if source.files is not None:
            between, covering = source.files.files_between, source.files.files_covering
            reading = between(first, last) if made.unit is Unit.FILES else covering(first, last)
            files = list(asyncio.run(_list(reading)))
        found.append(Piece.of(made.first_job + n, made.unit, (first, last), files))
    return found


async def _list(reading):  # type: ignore[no-untyped-def]  # an awaitable of files
    return await reading


@given(sizes=_FILES, files=_SOME, events=_SOME, cuts=st.booleans(), data=st.data())
def test_every_event_is_in_one_job_and_every_limit_is_kept(
    sizes: list[tuple[int, int]], files: int | None, events: int | None, cuts: bool, data: st.DataObject
) -> None:
    """Jobs follow each other without gap or overlap over all events; each keeps files, bytes and events, unless a single
    file holds more events and may not be cut; and cutting again gives the same."""
    largest = max(size for _, size in sizes)
    size_limit = data.draw(st.none() | st.integers(largest, 5000))
    caps = Caps(files=files, events=events, bytes=size_limit)
    unit = Unit.EVENTS if cuts and events is not None else Unit.FILES
    inline = _inputs(sizes)
    source = Source(events=inline.events, files=inline, unit=unit)
    if caps == Caps():
        caps = Caps(files=1)
    jobs = asyncio.run(cut(source, caps))
    assert asyncio.run(cut(source, caps)) == jobs
    pieces = _pieces(source, jobs)
    assert [p.job for p in pieces] == list(range(len(pieces)))
    assert pieces[0].first == 0
    assert pieces[-1].last == inline.events
    assert all(a.last == b.first for a, b in pairwise(pieces))
    for piece in pieces:
        held = piece.last - piece.first
        assert held > 0
        assert files is None or len(piece.files) <= files
        assert size_limit is None or sum(f.size or 0 for f in piece.files) <= size_limit
        assert events is None or held <= events or (unit is Unit.FILES and len(piece.files) == 1)
        told = piece.told()
        assert sum(f.last - f.first for f in told.files) == held
        assert all(0 <= f.first < f.last for f in told.files)
    assert asyncio.run(most_events(source, jobs)) == max(p.last - p.first for p in pieces)


@given(
    sizes=_FILES,
    files=_SOME,
    events=_SOME,
    cuts=st.booleans(),
    limit=st.none() | st.integers(1000, 5000),
    data=st.data(),
)
def test_files_that_come_one_after_the_other_are_cut_as_if_they_had_been_there(
    sizes: list[tuple[int, int]],
    files: int | None,
    events: int | None,
    cuts: bool,
    limit: int | None,
    data: st.DataObject,
) -> None:
    """However many come at once: the jobs are those of all files together, and only the last waits for the end."""
    caps = Caps(files=files, events=events, bytes=limit)
    unit = Unit.EVENTS if cuts and events is not None else Unit.FILES
    if caps == Caps():
        caps = Caps(files=1)
    at_once = asyncio.run(cut(_source(sizes, unit), caps))
    found: list[Jobs] = []
    there, jobs, position = 0, 0, 0
    while there < len(sizes):
        there += data.draw(st.integers(1, len(sizes) - there))
        ends = there == len(sizes)
        source = _source(sizes[:there], unit)
        some = asyncio.run(cut(source, caps, first_job=jobs, position=position, to_end=ends))
        found.append(some)
        jobs, position = some.cut.end_job, some.cut.last
        assert position <= source.end
    assert (jobs, position) == (at_once.cut.jobs, at_once.cut.last)
    assert [n for some in found for n in some.bounds] == list(at_once.bounds)
    whole = found[0].cut
    for some in found[1:]:
        if some.cut.jobs and whole.jobs:
            assert whole.goes_on_in(some.cut)
        whole = replace(whole, jobs=whole.jobs + some.cut.jobs, last=some.cut.last)
    assert whole == at_once.cut


@given(
    sizes=_FILES,
    files=_SOME,
    events=_SOME,
    limit=st.none() | st.integers(1000, 5000),
)
def test_a_trial_cuts_as_the_dispatcher_does(
    sizes: list[tuple[int, int]], files: int | None, events: int | None, limit: int | None
) -> None:
    """The same jobs with the same files, without a database."""
    if (files, events, limit) == (None, None, None):
        files = 1
    split = JobSplit(files_per_job=files, events_per_job=events, max_bytes=limit)
    listed = (InputFile(path=f"/d/{n}.root", events=e, size=s) for n, (e, s) in enumerate(sizes))
    spec = TaskSpec(
        name="t",
        payload=JobPayload(command=("true",)),
        output=Output(file="o.zip", format=OutputFormat.ZIP),
        inputs=Inputs(format=InputFormat.ROOT, container="t", files=tuple(listed)),
        split=split,
    )
    source = _source(sizes, Unit.EVENTS if split.cuts_files else Unit.FILES)
    pieces = _pieces(source, asyncio.run(cut(source, caps_of(split, Costs()))))
    trial = cut_listed(spec)
    assert [trial.slice_of(job) for job in range(trial.cut.jobs)] == [piece.told() for piece in pieces]


def _source(sizes: list[tuple[int, int]], unit: Unit) -> Source:
    inline = _inputs(sizes)
    return Source(events=inline.events, files=inline, unit=unit)


@given(sizes=_FILES, files=_SOME, events=_SOME, position=st.integers(0, 39))
def test_what_follows_scouts_begins_where_they_end(
    sizes: list[tuple[int, int]], files: int | None, events: int | None, position: int
) -> None:
    """Cutting from a position on gives all that is behind it, and nothing before."""
    inline = _inputs(sizes)
    for unit in Unit:
        end = inline.count if unit is Unit.FILES else inline.events
        at = min(position, end - 1)
        caps = Caps(files=files, events=events if events or unit is Unit.FILES else 7)
        if caps == Caps():
            continue
        source = Source(events=inline.events, files=inline, unit=unit)
        jobs = asyncio.run(cut(source, caps, first_job=10, position=at))
        pieces = _pieces(source, jobs)
        begin = asyncio.run(inline.files_between(at, at + 1))[0].first_event if unit is Unit.FILES else at
        assert (pieces[0].job, pieces[0].first, pieces[-1].last) == (10, begin, inline.events)
        assert all(a.last == b.first for a, b in pairwise(pieces))


@given(
    st.integers(1, 10**15),
    st.integers(1, 10**9),
    st.integers(0, 10**6),
)
def test_jobs_of_equal_size_are_arithmetic(events: int, size: int, at: int) -> None:
    """However many events, cutting keeps no boundaries, and the last job ends where the events do."""
    source = Source(events=events, files=None, unit=Unit.EVENTS)
    at = min(at, events - 1)
    jobs = asyncio.run(cut(source, Caps(events=size), first_job=3, position=at))
    assert not jobs.bounds
    made = jobs.cut
    assert made.span_of(3)[0] == at
    assert made.span_of(made.end_job - 1)[1] == events
    assert (made.jobs - 1) * size < events - at <= made.jobs * size


def test_a_file_larger_than_allowed_is_refused_by_name() -> None:
    """max_bytes never cuts a file: the file, its size and what to do are said; so is a file whose size nobody knows."""
    source = Source(events=2, files=_inputs([(1, 10), (1, 99)]), unit=Unit.FILES)
    with pytest.raises(InvalidValue, match=r"less than the 99 bytes of /d/1.root; allow at least those"):
        asyncio.run(cut(source, Caps(bytes=50)))
    nameless = InlineFiles(Inputs(format=InputFormat.LHE, files=(InputFile(path="/d/x", events=1),)))
    with pytest.raises(InvalidValue, match="needs the size of every file, and that of /d/x is not known"):
        asyncio.run(cut(replace(source, files=nameless), Caps(bytes=50)))


_MEASURES = st.lists(
    st.builds(
        JobMeasure,
        job=st.integers(0, 99),
        wall_s=st.floats(0, 1e5),
        max_rss_mb=st.floats(0, 1e5),
        disk_mb=st.floats(0, 1e5),
        output_mb=st.floats(0, 1e5),
    ),
    max_size=20,
    unique_by=lambda m: m.job,
)


@given(_MEASURES, _LIMIT, st.floats(0.2, 1e4), st.floats(1, 100))
def test_scouts_never_ask_for_more_than_the_user_stated(
    measures: list[JobMeasure], memory: int | None, walltime: float, growth: float
) -> None:
    """What is asked for after scouts is at most what the user stated, and where that allows it above all that was seen."""
    stated = (
        JobRequest(memory_mb=memory or 2000, walltime_s=walltime) if (memory or 2000) >= 16 else JobRequest()
    )
    grown = dict.fromkeys(range(100), growth)
    asked = request_of(stated, measures, growth=grown)
    assert asked.memory_mb <= stated.memory_mb
    assert asked.walltime_s <= stated.walltime_s
    assert replace(asked, memory_mb=1000, walltime_s=1.0) == replace(stated, memory_mb=1000, walltime_s=1.0)
    for m in measures:
        assert asked.walltime_s >= min(stated.walltime_s, m.wall_s * growth)
        assert asked.memory_mb >= min(stated.memory_mb, m.max_rss_mb)


@given(_MEASURES.filter(bool), st.integers(1, 10**6), st.floats(1, 1e5), st.integers(1, 10**5))
def test_jobs_cut_by_what_scouts_show_keep_the_limits(
    measures: list[JobMeasure], events: int, walltime: float, output: int
) -> None:
    """By the cost of the costliest event seen, a job that is cut to limits stays below each of them, or has one event."""
    held = {m.job: events for m in measures}
    shown = costs(measures, held)
    caps = caps_of(JobSplit(max_walltime_s=walltime, max_output_mb=output), shown)
    for limit, each in ((walltime, shown.wall_s), (output, shown.output_mb)):
        if each is not None and caps.events is not None and caps.events > 1:
            assert caps.events * each <= limit


@given(st.integers(1, 1000), st.integers(0, 1000))
@example(35, 28)
def test_four_of_five_scouts_are_enough(scouts: int, back: int) -> None:
    """The rest waits until 80% of the scouts are back, of a single one for that one."""
    assert enough_back(scouts=scouts, back=back) == (back * 5 >= scouts * 4)


def test_a_guess_stands_in_for_scouts() -> None:
    """Core-seconds an event make a job of 2 cores twice as long; several nodes have cores that nobody knows here."""
    known = guessed_costs(4.0, JobRequest(cores=2))
    assert known == Costs(wall_s=2.0)
    assert caps_of(JobSplit(max_walltime_s=100.0), known).events == 40
    assert guessed_costs(4.0, JobRequest(nodes=2)) == Costs()
    assert scout_caps(JobSplit(max_walltime_s=9.0), Unit.EVENTS) == Caps(events=10)
    assert scout_caps(JobSplit(max_walltime_s=9.0, events_per_job=3), Unit.EVENTS) == Caps(events=3)
    assert scout_caps(JobSplit(max_walltime_s=9.0), Unit.FILES) == Caps(files=1)
