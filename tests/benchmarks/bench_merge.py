"""Speed and memory of the merge, against ``cp`` of the same bytes in the same run.

Run ``python tests/benchmarks/bench_merge.py [--segments 200] [--megabytes 1.0] [--runs 7]``; both sides
end with their data on the disk. The ratio is the median of cp's time by the merge's, pair by pair.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.columns import Items, encode
from hpcpanda.events.journal import (
    ENTRY,
    FrameKind,
    JournalHeader,
    done_frame,
    frame,
    header_frame,
    schema_frame,
    segment_path,
)
from hpcpanda.merge import Source, merge


def physics(first: int, last: int) -> dict[str, object]:
    """Columns as an event generator returns them: 5 an event, 5 a particle (50 of them an event)."""
    rng = np.random.default_rng(first)
    n = last - first
    counts = rng.poisson(50, n).astype("<i4")
    total = int(counts.sum())
    columns: dict[str, object] = {
        "weight": rng.random(n),
        "x1": rng.random(n),
        "x2": rng.random(n),
        "process": rng.integers(0, 9, n, dtype="<i4"),
        "n": counts,
    }
    for name in ("px", "py", "pz", "e"):
        columns[name] = Items(rng.random(total, dtype="<f4"), "n")
    columns["pdg"] = Items(rng.integers(-30, 30, total, dtype="<i4"), "n")
    return columns


def make_source(folder: Path, number: int, first: int, megabytes: float, kind: OutputFormat) -> Source:
    """One node's journal and segment, ranges of 50 kB."""
    journal = folder / f"node{number:04d}.journal"
    entries, at, size = [], first, 0
    with segment_path(journal, 0).open("wb") as segment:
        while size < megabytes * 1e6:
            result: object = physics(at, at + 48)
            if kind is not OutputFormat.HDF5:
                result = np.random.default_rng(at).bytes(50_000)
            schema, data = encode(result, 48)
            blob = b"".join(data)
            segment.write(blob)
            entries.append((1, 0, 0, at, at + 48, size, len(blob), zlib.crc32(blob), 1.0, 0.0, 1.0, 0))
            at, size = at + 48, size + len(blob)
    header = JournalHeader(
        task_id=1, allocation_id="a", pack_id="p", incarnation=0, rank=number, host="h", cores=1, started=0.0
    )
    frames = (header_frame(header), schema_frame(schema), done_frame(np.array(entries, dtype=ENTRY)))
    journal.write_bytes(b"".join(frames) + frame(FrameKind.MARK))
    return Source(journal=journal, epoch=1, events=IntervalSet.span(first, at))


def make_sources(folder: Path, segments: int, megabytes: float, kind: OutputFormat) -> list[Source]:
    """Journals and segments of all nodes."""
    sources: list[Source] = []
    first = 0
    for number in range(segments):
        sources.append(make_source(folder, number, first, megabytes, kind))
        first = sources[-1].events.bounds[-1]
    return sources


def time_copy(folder: Path, into: Path) -> float:
    """Seconds of cp and sync."""
    begin = time.perf_counter()
    subprocess.run(["cp", "-r", folder, into], check=True)
    subprocess.run(["sync", "-f", into], check=True)
    return time.perf_counter() - begin


def time_merge(sources: list[Source], kind: OutputFormat, output: Path, threads: int | None) -> float:
    """Seconds of a merge."""
    begin = time.perf_counter()
    merge(sources=sources, format=kind, output=output, provenance={}, threads=threads)
    return time.perf_counter() - begin


def measure(base: Path, kind: OutputFormat, options: argparse.Namespace) -> dict[str, object]:
    """Pairs of cp and merge, in turn."""
    spool = base / "spool"
    spool.mkdir()
    sources = make_sources(spool, options.segments, options.megabytes, kind)
    size = sum(p.stat().st_size for p in spool.iterdir())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    copies, merges = [], []
    for _ in range(options.runs + 1):
        for act in ("copy", "merge"):
            shutil.rmtree(base / "out", ignore_errors=True)
            os.sync()
            if act == "copy":
                copies.append(time_copy(spool, base / "out"))
            else:
                merges.append(time_merge(sources, kind, base / "out" / "merged", options.threads))
    shutil.rmtree(spool)
    shutil.rmtree(base / "out")
    copies, merges = copies[1:], merges[1:]  # the first pair warms up
    return {
        "format": str(kind),
        "segments": options.segments,
        "bytes": size,
        "cp_s": round(statistics.median(copies), 4),
        "merge_s": round(statistics.median(merges), 4),
        "merge_all_s": [round(m, 3) for m in merges],
        "ratio": round(statistics.median(c / m for c, m in zip(copies, merges, strict=True)), 3),
        "rss_before_mb": before // 1024,
        "rss_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    """Print one JSON line a format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--segments", type=int, default=200)
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--format", type=OutputFormat, action="append")
    options = parser.parse_args()
    for kind in options.format or list(OutputFormat):
        with tempfile.TemporaryDirectory(dir=options.folder) as base:
            sys.stdout.write(json.dumps(measure(Path(base), kind, options)) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
