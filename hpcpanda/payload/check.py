"""Tries a payload before it is submitted: does an event depend on how ranges were cut, and what does it cost?"""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.compare import Content, first_difference, nan_columns, schema_change
from hpcpanda.payload.trial import Cut, CutTrial, Span, Trial, run_trial

MAX_FAILURES = 20
"""Most failed ranges a report lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutCost:
    """What the events cost in one cut."""

    name: str
    """How the events were cut."""
    ranges: int
    """Ranges that were finished."""
    event_seconds: float
    """Median over the ranges of seconds an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first event whose output depends on the cut."""

    event: int
    """Number of the event; for plain bytes, of the range of the first cut that wrote the byte."""
    column: str | None
    """The column that differs; None for plain bytes, or when the columns themselves differ."""
    cuts: tuple[str, str]
    """Names of the two cuts."""
    detail: str
    """What differs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeFailure:
    """A range that was not finished."""

    cut: str
    first: int
    last: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What was found out about a payload."""

    events: int
    """Events that were tried: the first ones of the task."""
    setup_s: float
    """Seconds from nothing to ready, once a node: import and set-up."""
    cuts: tuple[CutCost, ...]
    difference: Difference | None
    """None if all cuts gave the same content."""
    failures: tuple[RangeFailure, ...]
    """At most :data:`MAX_FAILURES`."""
    bytes_per_event: float
    """Stored bytes an event, before compression."""
    worker_rss_mb: float
    """Resident memory of the largest worker, MiB."""
    shared_mb: float | None
    """Part of it that workers share with each other, MiB; None where the system does not tell."""
    programs_rss_mb: float
    """Resident memory of the largest program a worker started, MiB, at most; 0 for callables."""
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every range was finished, and no event depends on the cut."""
        return self.difference is None and not self.failures


def check_payload(spec: TaskSpec, *, events: int, workers: int = 2) -> CheckReport:
    """Run the first ``events`` events of a task in several cuts and compare what comes out.

    Runs in processes of its own, as on a node: prepared once, then in ``workers`` forked workers. With
    zip output the ranges themselves are members of the archive, so only their order is varied.

    Raises:
        PayloadFailed: the payload cannot be prepared.
        InvalidValue: ``events`` or ``workers`` is not positive, or the files of the events are not known.
    """
    if events < 1 or workers < 1:
        raise InvalidValue("events" if events < 1 else "workers", "must be at least 1")
    if spec.inputs is not None and not spec.inputs.files:
        raise InvalidValue(
            "inputs.dataset",
            "a dataset cannot be tried here; name some of its files in 'inputs.files' for the trial",
        )
    events = min(events, spec.event_count)
    cuts = _cuts(spec, events, workers)
    with tempfile.TemporaryDirectory(prefix="hpcpanda-check-") as folder:
        trial = run_trial(spec, cuts, Path(folder))
    names = [cut.name for cut in cuts]
    complete = [(n, t) for n, t in zip(names, trial.cuts, strict=True) if _is_complete(t, events)]
    contents, difference = _contents(complete)
    difference = difference or _difference(contents)
    largest = max(trial.cuts, key=lambda t: t.rss_mb)
    programs_mb = 0.0 if spec.payload.form == "callable" else max(t.programs_mb for t in trial.cuts)
    failures = [
        RangeFailure(cut=name, first=first, last=last, error=error)
        for name, cut in zip(names, trial.cuts, strict=True)
        for (first, last), error in cut.failures
    ]
    return CheckReport(
        events=events,
        setup_s=trial.setup_s,
        cuts=tuple(_cost(n, t) for n, t in zip(names, trial.cuts, strict=True) if t.pieces),
        difference=difference,
        failures=tuple(failures[:MAX_FAILURES]),
        bytes_per_event=min((c.size for _, c in contents), default=0) / events,
        worker_rss_mb=largest.rss_mb,
        shared_mb=largest.shared_mb,
        programs_rss_mb=programs_mb,
        warnings=tuple(_warnings(spec, trial, contents[0][1] if contents else None, programs_mb)),
    )


def _cuts(spec: TaskSpec, events: int, workers: int) -> list[Cut]:
    """The same events in single ones, in large ranges, and in ranges that run in other orders."""
    sevens = _spans(spec, events, 7)
    if spec.output.format is OutputFormat.ZIP:
        return [
            _dealt("ranges of 7", sevens, workers),
            _dealt("ranges of 7, in reverse order", sevens[::-1], workers),
        ]
    shuffled = _spans(spec, events, 25)
    random.Random(0).shuffle(shuffled)
    cuts = [
        _dealt("ranges of 1", _spans(spec, events, 1), workers),
        _dealt("one range", _spans(spec, events, events), 1),
        _dealt("ranges of 7, in reverse order", sevens[::-1], workers),
        _dealt("ranges of 25, in random order", shuffled, workers),
    ]
    return cuts if events > 1 else cuts[:2]


def _spans(spec: TaskSpec, events: int, size: int) -> list[Span]:
    """Ranges of ``size`` events; as everywhere, none reaches across the end of an input file."""
    spans: list[Span] = []
    for start, end in _stretches(spec, events):
        starts = sorted({start, *range(start + -start % size, end, size)})
        spans += zip(starts, [*starts[1:], end], strict=True)
    return spans


def _stretches(spec: TaskSpec, events: int) -> list[Span]:
    """The first so many events, by the files that they are in; those of a dataset may leave some out."""
    if spec.inputs is None:
        return [(0, events)]
    found: list[Span] = []
    for start, file in zip(spec.inputs.starts, spec.inputs.files, strict=True):
        if events:
            count = min(events, file.events)
            found.append((start, start + count))
            events -= count
    return found


def _dealt(name: str, spans: list[Span], workers: int) -> Cut:
    hands = tuple(tuple(spans[w::workers]) for w in range(workers))
    return Cut(name=name, of_workers=tuple(hand for hand in hands if hand))


def _is_complete(trial: CutTrial, events: int) -> bool:
    return not trial.failures and sum(p.last - p.first for p in trial.pieces) == events


def _cost(name: str, trial: CutTrial) -> CutCost:
    costs = [p.seconds / (p.last - p.first) for p in trial.pieces]
    return CutCost(name=name, ranges=len(costs), event_seconds=statistics.median(costs))


def _contents(complete: list[tuple[str, CutTrial]]) -> tuple[list[tuple[str, Content]], Difference | None]:
    """The content of each complete cut, or the first change of columns inside one."""
    contents: list[tuple[str, Content]] = []
    for name, trial in complete:
        change = schema_change(trial.pieces)
        if change is not None:
            event, detail = change
            return contents, Difference(event=event, column=None, cuts=(name, name), detail=detail)
        contents.append((name, Content(trial.pieces)))
    return contents, None


def _difference(contents: list[tuple[str, Content]]) -> Difference | None:
    """The earliest event in which any cut differs from the first one."""
    found = []
    for name, content in contents[1:]:
        different = first_difference(contents[0][1], content)
        if different is not None:
            event, column, detail = different
            cuts = (contents[0][0], name)
            found.append(Difference(event=event, column=column, cuts=cuts, detail=detail))
    return min(found, key=lambda d: d.event, default=None)


def _warnings(spec: TaskSpec, trial: Trial, content: Content | None, programs_mb: float) -> Iterator[str]:
    if content is not None:
        for column, event in nan_columns(content):
            yield f"column {column!r} has NaN, first in event {event}"
        if content.size == 0:
            yield "the output is empty"
    if trial.printed_bytes:
        shown = trial.printed.decode(errors="replace").strip().splitlines() or [""]
        yield f"writes on stdout, {trial.printed_bytes} bytes, beginning {shown[0][:80]!r}; it goes to the node's log"
    if trial.new_threads > 0:
        threads = f"{trial.new_threads} thread{'s' * (trial.new_threads != 1)}"
        yield f"import and set-up start {threads}; workers are forked without them and may hang"
    for path in trial.open_files[:5]:
        yield f"the set-up leaves {path} open: forked workers share its position; open files in the call"
    left = sorted({name for cut in trial.cuts for name in cut.left_files})
    if left:
        yield f"leaves files in its work folder: {', '.join(left[:5])}; they are removed with the worker"
    used = max(programs_mb, *(cut.rss_mb for cut in trial.cuts))
    if used > spec.resources.memory_mb:
        yield f"used {used:.0f} MiB; with resources.memory_mb = {spec.resources.memory_mb} it would be ended"
