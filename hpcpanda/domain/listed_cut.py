"""How a task is cut into jobs whose files are listed in it, or that has none: for a trial without a dispatcher. Pure.

The rules are those of :mod:`hpcpanda.domain.splitting`, and so are the jobs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hpcpanda.domain.inputs import Inputs
from hpcpanda.domain.scouting import caps_of, guessed_costs, scout_caps
from hpcpanda.domain.splitting import Cut, FileSpan, Greedy, JobSlice, Piece, Unit, by_size
from hpcpanda.domain.task import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedCut:
    """The jobs of a task."""

    cut: Cut
    bounds: Sequence[int]
    """Position at which each begins; none where their size says so."""
    files: Sequence[FileSpan]
    most_jobs: int
    """Most that the task can have; as many as are cut, where scouts have nothing to decide."""

    def slice_of(self, job: int) -> JobSlice:
        """What a job has to do."""
        return Piece.of(job, self.cut.unit, self._span_of(job), self._files_of(job)).told()

    def _span_of(self, job: int) -> tuple[int, int]:
        if self.cut.size is not None:
            return self.cut.span_of(job)
        ends = (*self.bounds[1:], self.cut.last)
        return self.bounds[job], ends[job]

    def _files_of(self, job: int) -> Sequence[FileSpan]:
        first, last = self._span_of(job)
        if self.cut.unit is Unit.FILES:
            return self.files[first:last]
        return [f for f in self.files if f.first_event < last and f.first_event + f.events > first]


def cut_listed(spec: TaskSpec) -> ListedCut:
    """Cut a task; of one that scouts have to measure first, just its scouts.

    Expects a task that is to be cut, and does not read a dataset.

    Raises:
        InvalidValue: the size of a file is needed and not known, or is more than a job may read.
        TooLarge: it makes more jobs than can be kept.
    """
    split, request = spec.split, spec.job_request
    assert split is not None, "the task is not cut"
    assert request is not None, "only jobs are cut"
    files = _spans(spec.inputs) if spec.inputs is not None else []
    unit = Unit.EVENTS if not files or split.cuts_files else Unit.FILES
    end = last = len(files) if unit is Unit.FILES else spec.event_count
    if spec.has_to_learn:
        caps = scout_caps(split, unit)
    else:
        caps = caps_of(split, guessed_costs(spec.resources.event_seconds, request))
    size = caps.size_in(unit, of_files=bool(files))
    if size is None and not files:
        size = end
    if size is not None:
        last = min(end, spec.scout_count * size) if spec.has_to_learn else end
        cut = by_size(unit, first_job=0, first=0, last=last, size=size)
        return ListedCut(cut=cut, bounds=(), files=files, most_jobs=end if spec.has_to_learn else cut.jobs)
    greedy = Greedy.beginning(caps, unit, 0)
    for file in files:
        greedy.add(file)
    cut = Cut(unit=unit, first_job=0, jobs=len(greedy.bounds), first=0, last=end)
    return ListedCut(cut=cut, bounds=greedy.bounds, files=files, most_jobs=cut.jobs)


def _spans(inputs: Inputs) -> list[FileSpan]:
    return [
        FileSpan(ordinal=n, first_event=first, path=file.path, events=file.events, size=file.size)
        for n, (first, file) in enumerate(zip(inputs.starts, inputs.files, strict=True))
    ]
