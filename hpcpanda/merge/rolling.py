"""The output files of a task: one with all its accepted ranges, or several with so many events each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from hpcpanda.domain.errors import CorruptData, MergeFailed
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.outputs import Output
from hpcpanda.events.journal import entries_within, events_of, read_journal
from hpcpanda.merge.bundles import JobOutputs
from hpcpanda.merge.merging import MergeResult, merge
from hpcpanda.merge.plan import Numbers, Source


def merge_files(
    *,
    sources: Sequence[Source],
    output: Output,
    folder: Path,
    rest: bool,
    provenance: Mapping[str, str],
    failed: IntervalSet = EMPTY,
    jobs: JobOutputs | None = None,
    progress: Callable[[float], None] = lambda _: None,
    threads: int | None = None,
) -> list[MergeResult]:
    """Merge the accepted ranges of journals into the files that the task wants, one after the other; see
    :func:`hpcpanda.merge.merge`.

    Doing it again with the same sources, after a kill at any point or after success, gives the same files.

    Args:
        sources: the accepted part of each journal.
        output: what the task wants.
        folder: of the files.
        rest: of a task with several files, what does not fill one is written, too.
        provenance: free facts for the manifests.
        failed: events that are set aside for good, for the manifest of the last file.
        jobs: for a task of jobs, what they leave.
        progress: told the share that is done, 0 to 1, now and then.
        threads: how many to use; see there.

    Raises:
        MergeFailed: a file cannot be made; those before it stand.
        CorruptData: a segment, journal or bundle is damaged.
    """
    files: Sequence[Sequence[Source]] = [sources]
    if output.max_events is not None:
        files = portions(sources, most=output.max_events, rest=rest)
    made: list[MergeResult] = []
    for part in files:
        first = min((s.events.bounds[0] for s in part if s.events), default=0)
        result = merge(
            sources=part,
            format=output.format,
            output=folder / output.file_from(first),
            provenance=provenance,
            failed=failed if len(made) == len(files) - 1 else EMPTY,
            progress=partial(_share, progress, len(made), len(files)),
            jobs=jobs,
            threads=threads,
        )
        made.append(result)
    return made


def _share(progress: Callable[[float], None], before: int, files: int, share: float) -> None:
    """Tell the share of all files, with so many of them behind."""
    progress((before + share) / files)


def portions(sources: Sequence[Source], *, most: int, rest: bool) -> list[tuple[Source, ...]]:
    """What goes into each of several files: the ranges in event order, as many whole ones as have at most ``most``
    events together; one that has more is alone.

    The same sources are always cut alike, so that a merge which is done again makes the same files.

    Args:
        sources: the accepted part of each journal; no event is in two of them.
        most: events of a file.
        rest: the last portion counts although more would fit.

    Raises:
        MergeFailed: a journal cannot be read.
        CorruptData: a journal cannot be understood.
    """
    first, last, owner = _ranges(sources)
    total = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(last - first)))
    found: list[tuple[Source, ...]] = []
    begin = 0
    while begin < len(first):
        fits = int(np.searchsorted(total, total[begin] + most, side="right")) - 1
        end = max(fits, begin + 1)
        if end == len(first) and total[end] - total[begin] < most and not rest:
            break
        rows = slice(begin, end)
        found.append(_portion(sources, first[rows], last[rows], owner[rows]))
        begin = end
    return found


def _ranges(sources: Sequence[Source]) -> tuple[Numbers, Numbers, Numbers]:
    """Begin and end of all accepted ranges in event order, and the number of the source that each is from."""
    first, last, owner = ([np.empty(0, dtype=np.int64)] for _ in range(3))
    for number, source in enumerate(sources):
        try:
            entries = read_journal(source.journal).entries
        except OSError as problem:
            raise MergeFailed(f"journal {source.journal} cannot be read: {problem.strerror}") from problem
        except CorruptData as problem:
            raise CorruptData(f"journal {source.journal}: {problem}") from problem
        mine = entries_within(entries, source.epoch, source.events)
        if missing := source.events - events_of(mine):
            raise MergeFailed(f"events {missing} are accepted but not in journal {source.journal}")
        first.append(mine["first"].astype(np.int64))
        last.append(mine["last"].astype(np.int64))
        owner.append(np.full(len(mine), number, dtype=np.int64))
    begins = np.concatenate(first)
    order = np.argsort(begins, kind="stable")
    return begins[order], np.concatenate(last)[order], np.concatenate(owner)[order]


def _portion(sources: Sequence[Source], first: Numbers, last: Numbers, owner: Numbers) -> tuple[Source, ...]:
    """The sources with only those of their ranges that are in a portion."""
    return tuple(
        replace(sources[number], events=_union(first[owner == number], last[owner == number]))
        for number in np.unique(owner).tolist()
    )


def _union(first: Numbers, last: Numbers) -> IntervalSet:
    """Ranges in order, none of which overlaps another."""
    apart = np.ones(len(first), dtype=bool)
    apart[1:] = first[1:] > last[:-1]
    ends = np.append(np.flatnonzero(apart)[1:] - 1, len(first) - 1)
    return IntervalSet(tuple(np.column_stack((first[apart], last[ends])).ravel().tolist()))
