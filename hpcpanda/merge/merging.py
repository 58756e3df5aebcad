"""The merge: accepted ranges of all journals to one checked output file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import hpcpanda
from hpcpanda.domain.errors import HpcPandaError, MergeFailed
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.bundle import JobReport
from hpcpanda.merge.archive import ZipMerger
from hpcpanda.merge.bundles import JobOutputs, Surveyor, plan_files
from hpcpanda.merge.checking import check
from hpcpanda.merge.concat import ConcatMerger
from hpcpanda.merge.copying import Copier
from hpcpanda.merge.digest import digest_file
from hpcpanda.merge.files import (
    remove_leftovers,
    sync_folder,
    temporary_beside,
    write_at,
    write_durable,
)
from hpcpanda.merge.hdf5 import Hdf5Merger
from hpcpanda.merge.job_archive import JobArchiveMerger
from hpcpanda.merge.layout import Layout
from hpcpanda.merge.manifest import Manifest, dump_manifest, load_manifest, manifest_path, source_records
from hpcpanda.merge.merger import Merger
from hpcpanda.merge.plan import Plan, Source, make_plan
from hpcpanda.merge.reading import available_cores
from hpcpanda.merge.reports import ReportsRecord, reports_path, reports_stand, write_reports
from hpcpanda.merge.view import remove_view

MERGERS: Final[Mapping[OutputFormat, Merger]] = {
    OutputFormat.HDF5: Hdf5Merger(),
    OutputFormat.CONCAT: ConcatMerger(),
    OutputFormat.ZIP: ZipMerger(),
}
_MOST_THREADS: Final = 8
_FLUSH_S: Final = 0.02
_SURVEY: Final = 0.25
"""Share of the time of a merge of jobs that goes into looking at the bundles."""
_COPY: Final = 0.6
"""Share of the time, after that, that goes into copying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """The file that stands now."""

    path: Path
    manifest: Path
    digest: str
    size: int
    """Bytes of the file."""
    events: IntervalSet
    reports: Path | None = None
    """Of a task of jobs: the file with the jobs' reports."""


def merge(
    *,
    sources: Sequence[Source],
    format: OutputFormat,  # noqa: A002 - the word of the task's output
    output: Path,
    provenance: Mapping[str, str],
    failed: IntervalSet = EMPTY,
    jobs: JobOutputs | None = None,
    progress: Callable[[float], None] | None = None,
    threads: int | None = None,
) -> MergeResult:
    """Merge the accepted ranges of journals into ``output``, in event order.

    The output appears whole, checked and on the disk, or not at all. Doing it again, after a kill at
    any point or after success, gives the same.

    Args:
        sources: the accepted part of each journal.
        format: of the output.
        output: the merged file; an older one is replaced.
        provenance: free facts for the manifest.
        failed: events that are set aside for good, for the manifest.
        jobs: for a task of jobs, what they leave; the sources hold a bundle a job, and the format is ZIP.
        progress: told the share that is done, 0 to 1, now and then.
        threads: how many to use; by default the cores of this process, up to 8.

    Raises:
        MergeFailed: events are missing or double, columns differ, jobs left other files than declared, or the
            output cannot be written.
        CorruptData: a segment, journal or bundle is damaged.
    """
    output = Path(output)
    if jobs is not None and format is not OutputFormat.ZIP:
        raise MergeFailed(f"the files of jobs are merged into an archive, not {format}; use zip")
    if standing := _standing(sources, format, output, failed, of_jobs=jobs is not None):
        remove_leftovers(output)
        remove_view(output)
        sync_folder(output.parent)
        return standing
    plan = make_plan(sources, failed)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(output)
        threads = threads or _threads()
        with ThreadPoolExecutor(threads, thread_name_prefix="merge") as pool:
            work = _Merging(plan, format, output, provenance, progress or _ignore, pool, threads)
            return work.merge_ranges() if jobs is None else work.merge_jobs(jobs)
    except OSError as problem:
        raise MergeFailed(f"{output} cannot be written: {problem}; nothing was replaced") from problem
    finally:
        remove_leftovers(output)
        remove_view(output)


@dataclass(frozen=True, slots=True)
class _Merging:
    """One merge under way."""

    plan: Plan
    format: OutputFormat
    output: Path
    provenance: Mapping[str, str]
    progress: Callable[[float], None]
    pool: ThreadPoolExecutor
    threads: int

    def merge_ranges(self) -> MergeResult:
        """The output of events."""
        return self._write(MERGERS[self.format], self.plan, 0.0)

    def merge_jobs(self, outputs: JobOutputs) -> MergeResult:
        """The archive of the jobs' files, and their reports."""
        tables = [np.empty((0, len(outputs.outputs), 3), dtype=np.int64)]

        def reports() -> Iterator[JobReport]:
            for bundles in Surveyor(self.plan, outputs).survey(
                self.pool, self.threads, lambda n: self._tell(0.0, _SURVEY, n)
            ):
                tables.append(bundles.files)
                yield from bundles.reports

        path = temporary_beside(self.output, "reports")
        record = write_reports(path, reports(), self.plan, self.output)
        names = [name for job in self.plan.ranges.first.tolist() for name in outputs.member_names(job)]
        files = plan_files(self.plan, np.concatenate(tables))
        return self._write(JobArchiveMerger(names), files, _SURVEY, (path, record))

    def _write(
        self, merger: Merger, content: Plan, begin: float, reports: tuple[Path, ReportsRecord] | None = None
    ) -> MergeResult:
        """Write what is to be copied, and put it into place.

        Args:
            merger: of the format.
            content: what is to be copied.
            begin: share of the work that is behind.
            reports: the file with the jobs' reports.
        """
        temporary = temporary_beside(self.output)
        layout = merger.lay_out(content, temporary)
        note = merger.preview(content, layout, self.output)
        digest = self._fill(merger, content, layout, temporary, begin)
        manifest = Manifest(
            file=self.output.name,
            output_format=self.format,
            digest=digest,
            size=temporary.stat().st_size,
            events=self.plan.events,
            failed=self.plan.failed,
            schema=self.plan.schema,
            sources=source_records(self.plan),
            reports=reports[1] if reports else None,
            notes=(note,) if note else (),
            provenance=dict(self.provenance),
            hpcpanda=hpcpanda.__version__,
        )
        described = temporary_beside(self.output, "manifest")
        write_durable(described, dump_manifest(manifest))
        if reports:
            reports[0].replace(reports_path(self.output))
        described.replace(manifest_path(self.output))
        sync_folder(self.output.parent)
        temporary.replace(self.output)
        sync_folder(self.output.parent)
        self.progress(1.0)
        return _result(self.output, manifest)

    def _fill(self, merger: Merger, content: Plan, layout: Layout, temporary: Path, begin: float) -> str:
        """Copy the data, bring it to the disk, check it; gives the digest of what is in the file."""
        copied = begin + (1 - begin) * _COPY
        fd = os.open(temporary, os.O_RDWR)
        try:
            with _flushing(fd):
                copier = Copier(content, layout, fd, self.pool, self.threads)
                pieces = copier.copy(lambda n: self._tell(begin, copied, n))
                if layout.tail:
                    write_at(fd, layout.tail_offset, layout.tail)
                merger.inspect(content, layout, temporary)
                digest = check(
                    temporary, layout, pieces, self.pool, self.threads, lambda n: self._tell(copied, 1.0, n)
                )
            os.fsync(fd)
        finally:
            os.close(fd)
        return digest

    def _tell(self, begin: float, end: float, size: int) -> None:
        """Tell the share of a step that is done when so many bytes are."""
        self.progress(begin + (end - begin) * size / max(1, self.plan.size))


@contextmanager
def _flushing(fd: int) -> Iterator[None]:
    """Let the disk work while the file is still being written, so that little is left for the last sync."""
    ended = threading.Event()
    errors: list[OSError] = []

    def flush() -> None:
        while not ended.wait(_FLUSH_S):
            try:
                os.fdatasync(fd)
            except OSError as problem:
                errors.append(problem)  # the system tells of a lost write only once
                return

    thread = threading.Thread(target=flush, name="merge-flush")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if errors:
        raise errors[0]


def _standing(
    sources: Sequence[Source],
    format: OutputFormat,  # noqa: A002
    output: Path,
    failed: IntervalSet,
    *,
    of_jobs: bool,
) -> MergeResult | None:
    """The result of an earlier merge of the very same sources, if it stands whole."""
    manifest = load_manifest(output)
    if manifest is None or not output.is_file():
        return None
    wanted = {(str(s.journal), s.epoch, s.events.bounds) for s in sources}
    found = {(s.journal, s.epoch, s.events.bounds) for s in manifest.sources}
    same = (
        wanted == found
        and (manifest.format, manifest.output_format, manifest.failed) == (1, format, failed)
        and manifest.size == output.stat().st_size
        and (manifest.reports is not None) == of_jobs
    )
    try:
        if manifest.reports is not None and not reports_stand(output, manifest.reports):
            return None
        if not same or digest_file(output, format) != manifest.digest:
            return None
    except (HpcPandaError, OSError):
        return None
    return _result(output, manifest)


def _result(output: Path, manifest: Manifest) -> MergeResult:
    return MergeResult(
        path=output,
        manifest=manifest_path(output),
        digest=manifest.digest,
        size=manifest.size,
        events=manifest.events,
        reports=reports_path(output) if manifest.reports is not None else None,
    )


def _threads() -> int:
    return min(_MOST_THREADS, available_cores())


def _ignore(share: float) -> None:
    """No one wants to know the progress."""
