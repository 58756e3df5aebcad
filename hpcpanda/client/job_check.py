"""Tries jobs before they are submitted: does a job give the same files twice, and what does it need?

Jobs run as on a node, by the same keeper: own work folder, limits, environment.
"""

from __future__ import annotations

import os
import select
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from hpcpanda.allocation.job_keeper import JobKeeper
from hpcpanda.allocation.job_outcome import STREAMS
from hpcpanda.allocation.job_process import words_of
from hpcpanda.allocation.job_run import JobEnded, JobRun
from hpcpanda.allocation.job_words import SLICE
from hpcpanda.domain.errors import InvalidValue, PayloadFailed
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.listed_cut import ListedCut, cut_listed
from hpcpanda.domain.site import NodeSettings, Site
from hpcpanda.domain.task import TaskSpec

_BLOCK = 1 << 20
_NEARLY = 0.8
"""Part of what is asked for that is close to too much."""
_HARDLY = 0.1
"""Part of the walltime below which less could be asked for."""
_IDLE = 0.5
"""Part of its cores that a job should keep busy."""
_TELLING_S = 1.0
"""Shorter runs tell nothing of how busy cores are."""
_MAX_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCost:
    """What one run of a job took."""

    job: int
    wall_s: float
    cpu_s: float
    max_rss_mb: float
    output_bytes: int
    """Of its outputs together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDifference:
    """An output that was another in the second run."""

    job: int
    file: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """A run that failed."""

    job: int
    attempt: int
    error: str
    printed: str
    """The end of what it printed on stderr, or on stdout if that is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsReport:
    """What was found out about the jobs of a task."""

    jobs: tuple[int, ...]
    """Those that were tried, each twice."""
    costs: tuple[JobCost, ...]
    """Of the runs that succeeded."""
    differences: tuple[JobDifference, ...]
    failures: tuple[JobFailure, ...]
    warnings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every run succeeded, and gave the same files as the other of its job."""
        return not self.differences and not self.failures


def check_jobs(spec: TaskSpec, *, jobs: int, workers: int) -> JobsReport:
    """Run ``jobs`` jobs, spread over all of the task's, twice each, ``workers`` at a time, and compare their outputs. Of a task
    that is cut by what scouts show, the jobs are its scouts.

    The second runs are in the reverse order, in other work folders, and are told that they are second attempts.

    Raises:
        InvalidValue: the task has no jobs, or such as cannot be tried without a site, or cannot be cut as it says.
        TooLarge: it is cut into more jobs than can be kept.
        PayloadFailed: the process that runs the jobs has ended.
    """
    request = spec.job_request
    if request is None or not isinstance(spec.payload, JobPayload):
        raise InvalidValue("payload.form", "is not 'job'")
    if request.nodes > 1:
        raise InvalidValue(
            "job.nodes", "jobs on several nodes cannot be tried without a site; submit a task with jobs = 1"
        )
    if spec.inputs is not None and not spec.inputs.files:
        raise InvalidValue(
            "inputs.dataset",
            "a dataset cannot be tried here; name some of its files in 'inputs.files' for the trial",
        )
    if spec.container is not None:
        raise InvalidValue(
            "container", "cannot be run without a site; check a copy of the task file without it in the image"
        )
    cut = cut_listed(spec) if spec.split is not None else None
    numbers = _spread(cut.cut.jobs if cut is not None else spec.event_count, jobs)
    runs = [_run(spec, spec.payload, request, cut, n, attempt=1) for n in numbers]
    runs += [_run(spec, spec.payload, request, cut, n, attempt=2) for n in reversed(numbers)]
    with tempfile.TemporaryDirectory(prefix="hpcpanda-check-") as folder:
        trial = _Trial(spec.payload, {run.job: words_of(run).names for run in runs})
        keeper = JobKeeper(scratch=Path(folder), site=_site(request, folder), log=2)
        try:
            for ended in _ended(keeper, runs, workers):
                trial.take(ended)
                for run_id in trial.compared:
                    keeper.forget(run_id)
                trial.compared.clear()
        finally:
            keeper.close()
    costs = tuple(sorted(trial.costs, key=lambda c: c.job))
    return JobsReport(
        jobs=tuple(numbers),
        costs=costs,
        differences=tuple(sorted(trial.differences, key=lambda d: (d.job, d.file))),
        failures=tuple(sorted(trial.failures, key=lambda f: (f.job, f.attempt))),
        warnings=(*_warnings(spec.payload, request, costs), *_left(trial.left)),
    )


class _Trial:
    """What has been found out so far."""

    def __init__(self, payload: JobPayload, read: Mapping[int, Sequence[str]]) -> None:
        """``read``: the names that the files of a job's slice have in its work folder."""
        self._known = {*STREAMS, SLICE, *(Path(path).name for path in payload.inputs)}
        self._read = read
        self._first: dict[int, JobEnded] = {}
        self.costs: list[JobCost] = []
        self.differences: list[JobDifference] = []
        self.failures: list[JobFailure] = []
        self.left: set[str] = set()
        """Files that are no outputs."""
        self.compared: list[int] = []
        """Runs whose folders are not needed any more."""

    def take(self, ended: JobEnded) -> None:
        """Add a run that has ended."""
        report = ended.report
        if report.error is not None or ended.folder is None:
            failure = JobFailure(
                job=report.job,
                attempt=report.attempt,
                error=report.error or "it left no work folder",
                printed=report.stderr_tail if report.stderr_tail.strip() else report.stdout_tail,
            )
            self.failures.append(failure)
            return
        size = sum((ended.folder / name).stat().st_size for name in ended.outputs)
        self.costs.append(
            JobCost(
                job=report.job,
                wall_s=report.wall_s,
                cpu_s=report.cpu_s,
                max_rss_mb=report.max_rss_mb,
                output_bytes=size,
            )
        )
        kept = self._known | set(ended.outputs) | set(self._read[report.job])
        self.left |= {name for name in _files(ended.folder) if name not in kept}
        other = self._first.setdefault(report.job, ended)
        if other is not ended:
            first, second = sorted((other, ended), key=lambda run: run.report.attempt)
            assert first.folder is not None
            assert second.folder is not None
            self._compare(report.job, ended.outputs, first.folder, second.folder)
            self.compared += [other.run_id, ended.run_id]

    def _compare(self, job: int, outputs: Sequence[str], first: Path, second: Path) -> None:
        for name in outputs:
            detail = _difference(first / name, second / name)
            if detail is not None:
                self.differences.append(JobDifference(job=job, file=name, detail=detail))


def _spread(count: int, wanted: int) -> list[int]:
    """So many numbers of ``[0, count)``, evenly spaced, the first and the last among them."""
    wanted = min(wanted, count)
    return [0] if wanted == 1 else [i * (count - 1) // (wanted - 1) for i in range(wanted)]


def _run(
    spec: TaskSpec, payload: JobPayload, request: JobRequest, cut: ListedCut | None, job: int, *, attempt: int
) -> JobRun:
    return JobRun(
        run_id=2 * job + attempt,
        task_id=0,
        epoch=0,
        job=job,
        attempt=attempt,
        jobs=cut.most_jobs if cut is not None else spec.event_count,
        seed=spec.seed,
        payload=payload,
        request=request,
        content=cut.slice_of(job) if cut is not None else None,
        gpus=tuple(range(request.gpus)),
    )


def _site(request: JobRequest, folder: str) -> Site:
    """This machine."""
    nodes = NodeSettings(
        count=1,
        cores=max(request.cores, os.cpu_count() or 1),
        memory_mb=max(64, request.memory_mb),
        gpus=request.gpus,
        oversubscribe=True,
    )
    return Site(name="check", spool=folder, nodes=nodes)


def _ended(keeper: JobKeeper, runs: Sequence[JobRun], workers: int) -> Iterator[JobEnded]:
    """Run all, ``workers`` at a time, as they end."""
    waiting = list(reversed(runs))
    in_hand = 0
    while waiting or in_hand:
        while waiting and in_hand < workers:
            keeper.run(waiting.pop())
            in_hand += 1
        select.select([keeper.sock], [], [], 1.0)
        notices = keeper.notices()
        if notices is None:
            raise PayloadFailed("the process that runs the jobs has ended; what it said is above")
        in_hand -= len(notices)
        yield from notices


def _files(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield str((Path(place) / name).relative_to(folder))


def _difference(a: Path, b: Path) -> str | None:
    """The first byte in which two files differ, in words; None when they are equal."""
    at = 0
    with a.open("rb") as x, b.open("rb") as y:
        while True:
            p, q = x.read(_BLOCK), y.read(_BLOCK)
            if p != q:
                pairs = enumerate(zip_longest(p, q))
                at += next(i for i, (left, right) in pairs if left != right)
                sizes = f"{a.stat().st_size:,} and {b.stat().st_size:,} bytes"
                return f"byte {at:,} differs between two runs ({sizes})"
            if not p:
                return None
            at += len(p)


def _warnings(payload: JobPayload, request: JobRequest, costs: Sequence[JobCost]) -> Iterator[str]:
    if not payload.outputs:
        yield "payload.outputs is empty: nothing of a job is kept but its report; name 'stdout.txt' to keep what it prints"
    here = len(os.sched_getaffinity(0))
    if request.cores > here:
        yield f"a job asks for {request.cores} cores and this machine has {here}; it may be faster elsewhere"
    if request.gpus:
        yield "GPUs are not checked: a job is told to use the first ones of this machine"
    if not costs:
        return
    rss_mb = max(c.max_rss_mb for c in costs)
    if rss_mb > _NEARLY * request.memory_mb:
        yield f"used {rss_mb:.0f} of {request.memory_mb} MiB; a job that uses more is ended: ask for more memory_mb"
    wall_s = max(c.wall_s for c in costs)
    if wall_s > _NEARLY * request.walltime_s:
        yield f"ran {wall_s:.3g} of {request.walltime_s:g} s; a job that runs longer is ended: ask for more walltime_s"
    elif wall_s < _HARDLY * request.walltime_s:
        yield f"ran {wall_s:.3g} of {request.walltime_s:g} s; with less walltime_s it fits into shorter windows"
    cpu_s, of_s = sum(c.cpu_s for c in costs), sum(c.wall_s for c in costs)
    if 1 < request.cores <= here and wall_s > _TELLING_S and cpu_s < _IDLE * of_s * request.cores:
        yield f"kept {cpu_s / of_s:.1f} of its {request.cores} cores busy"


def _left(names: set[str]) -> Iterator[str]:
    if names:
        shown = ", ".join(sorted(names)[:_MAX_NAMES])
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        yield f"leaves files that are not in payload.outputs: {shown}{more}; they are removed with the work folder"
