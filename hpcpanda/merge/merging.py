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

import hpcpanda
from hpcpanda.domain.errors import HpcPandaError, MergeFailed
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.task import OutputFormat
from hpcpanda.merge.archive import ZipMerger
from hpcpanda.merge.concat import ConcatMerger
from hpcpanda.merge.copying import Copier, available_cores, check
from hpcpanda.merge.digest import digest_file
from hpcpanda.merge.files import (
    remove_leftovers,
    sync_folder,
    temporary_beside,
    write_at,
    write_durable,
)
from hpcpanda.merge.hdf5 import Hdf5Merger
from hpcpanda.merge.layout import Layout
from hpcpanda.merge.manifest import Manifest, dump_manifest, load_manifest, manifest_path, source_records
from hpcpanda.merge.merger import Merger
from hpcpanda.merge.plan import Plan, Source, make_plan
from hpcpanda.merge.view import remove_view

MERGERS: Final[Mapping[OutputFormat, Merger]] = {
    OutputFormat.HDF5: Hdf5Merger(),
    OutputFormat.CONCAT: ConcatMerger(),
    OutputFormat.ZIP: ZipMerger(),
}
_MOST_THREADS: Final = 8
_FLUSH_S: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeResult:
    """The file that stands now."""

    path: Path
    manifest: Path
    digest: str
    size: int
    """Bytes of the file."""
    events: IntervalSet


def merge(
    *,
    sources: Sequence[Source],
    format: OutputFormat,  # noqa: A002 - the word of the task's output
    output: Path,
    provenance: Mapping[str, str],
    failed: IntervalSet = EMPTY,
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
        progress: told the share that is done, 0 to 1, now and then.
        threads: how many to use; by default the cores of this process, up to 8.

    Raises:
        MergeFailed: events are missing or double, columns differ, or the output cannot be written.
        CorruptData: a segment or journal is damaged.
    """
    output = Path(output)
    if standing := _standing(sources, format, output, failed):
        remove_leftovers(output)
        remove_view(output)
        sync_folder(output.parent)
        return standing
    plan = make_plan(sources, failed)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(output)
        return _merge(plan, format, output, provenance, progress or _ignore, threads or _threads())
    except OSError as problem:
        raise MergeFailed(f"{output} cannot be written: {problem}; nothing was replaced") from problem
    finally:
        remove_leftovers(output)
        remove_view(output)


def _merge(
    plan: Plan,
    format: OutputFormat,  # noqa: A002
    output: Path,
    provenance: Mapping[str, str],
    progress: Callable[[float], None],
    threads: int,
) -> MergeResult:
    merger = MERGERS[format]
    temporary = temporary_beside(output)
    layout = merger.lay_out(plan, temporary)
    note = merger.preview(plan, layout, output)
    digest = _fill(merger, plan, layout, temporary, progress, threads)
    manifest = Manifest(
        file=output.name,
        output_format=format,
        digest=digest,
        size=temporary.stat().st_size,
        events=plan.events,
        failed=plan.failed,
        schema=plan.schema,
        sources=source_records(plan),
        notes=(note,) if note else (),
        provenance=dict(provenance),
        hpcpanda=hpcpanda.__version__,
    )
    described = temporary_beside(output, "manifest")
    write_durable(described, dump_manifest(manifest))
    described.replace(manifest_path(output))
    temporary.replace(output)
    sync_folder(output.parent)
    progress(1.0)
    return _result(output, manifest)


def _fill(
    merger: Merger,
    plan: Plan,
    layout: Layout,
    temporary: Path,
    progress: Callable[[float], None],
    threads: int,
) -> str:
    """Copy the data, bring it to the disk, check it; gives the digest of what is in the file."""
    total = max(1, plan.size)
    fd = os.open(temporary, os.O_RDWR)
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="merge") as pool:
            with _flushing(fd):
                pieces = Copier(plan, layout, fd, pool, threads).copy(lambda n: progress(0.6 * n / total))
                if layout.tail:
                    write_at(fd, layout.tail_offset, layout.tail)
                merger.inspect(plan, layout, temporary)
                digest = check(
                    temporary, layout, pieces, pool, threads, lambda n: progress(0.6 + 0.4 * n / total)
                )
            os.fsync(fd)
    finally:
        os.close(fd)
    return digest


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
    )
    try:
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
    )


def _threads() -> int:
    return min(_MOST_THREADS, available_cores())


def _ignore(share: float) -> None:
    """No one wants to know the progress."""
