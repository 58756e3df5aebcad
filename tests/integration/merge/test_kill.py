"""A merge that is killed anywhere is done again with the same result."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.events.columns import Items
from hpcpanda.merge import (
    JobOutputs,
    Source,
    digest_bytes,
    digest_columns,
    digest_file,
    digest_members,
    load_manifest,
    merge,
    merging,
    reports_path,
)
from hpcpanda.merge.hdf5 import Hdf5Merger

STEPS = ("pwrite", "writev", "fsync", "fdatasync", "open", "replace", "rename", "unlink")


def count_down(steps: int) -> None:
    """Let this process be killed just before the n-th step that touches the disk."""
    left = [steps]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return step

    for name in STEPS:
        setattr(os, name, wrap(getattr(os, name)))


def killed_merge(steps: int, kind: OutputFormat, sources: list[Source], output: Path) -> None:
    """What the child process does."""
    merging.MERGERS = {**merging.MERGERS, OutputFormat.HDF5: Hdf5Merger(view_from=0)}  # type: ignore[misc]
    merging._FLUSH_S = 1e-9  # type: ignore[misc]
    count_down(steps)
    merge(sources=sources, format=kind, output=output, provenance={}, threads=1)


@pytest.mark.parametrize("before", ["nothing", "an older output"])
@pytest.mark.parametrize("kind", list(OutputFormat))
def test_killed_before_any_step_on_disk(
    making: ModuleType, tmp_path: Path, kind: OutputFormat, before: str
) -> None:
    """Killed before each write, sync, rename and unlink in turn: the output is whole, old, or absent, and the
    next merge gives the digest of a serial run and leaves nothing else behind."""
    payload = making.arrays if kind is OutputFormat.HDF5 else making.plain_bytes
    sources = making.Spool(tmp_path / "spool").nodes(60, payload, roll=2000)
    result = payload(0, 60)
    serial = digest_bytes(result) if isinstance(result, bytes) else digest_columns(result)
    context = multiprocessing.get_context("fork")
    for steps in range(1000):
        folder = tmp_path / str(steps)
        folder.mkdir()
        output = folder / "out.x"
        old = None
        if before != "nothing":
            old = merge(sources=sources[:1], format=kind, output=output, provenance={}).digest
        child = context.Process(target=killed_merge, args=(steps, kind, sources, output))
        child.start()
        child.join(60)
        assert child.exitcode in (0, -signal.SIGKILL)
        if output.exists():
            assert digest_file(output, kind) in (old, serial)
        again = merge(sources=sources, format=kind, output=output, provenance={})
        assert again.digest == digest_file(output, kind) == serial
        assert sorted(p.name for p in folder.iterdir()) == ["out.x", "out.x.manifest.json"]
        if child.exitcode == 0:
            break
    assert 10 < steps < 999


def killed_merge_of_jobs(steps: int, sources: list[Source], jobs: JobOutputs, output: Path) -> None:
    """What the child process does."""
    merging._FLUSH_S = 1e-9  # type: ignore[misc]
    count_down(steps)
    merge(sources=sources, format=OutputFormat.ZIP, output=output, provenance={}, jobs=jobs, threads=1)


def test_merge_of_jobs_killed_before_any_step_on_disk(making: ModuleType, tmp_path: Path) -> None:
    """As above for an archive of jobs that replaces an older one: whenever the archive is the new one, the reports
    and the manifest are those that belong to it."""
    spool = making.Spool(tmp_path / "spool")
    sources = [spool.jobs(f"n{k}", range(11 - k, -1, -3), making.job_files, roll=2000) for k in range(3)]
    jobs = JobOutputs(jobs=12, outputs=making.OUTPUTS)
    request = {"format": OutputFormat.ZIP, "provenance": {}, "jobs": jobs}
    serial = digest_members(
        [(f"{job:02}/{n}", data) for job in range(12) for n, data in making.job_files(job)]
    )
    context = multiprocessing.get_context("fork")
    for steps in range(1000):
        output = tmp_path / str(steps) / "out.zip"
        old = merge(sources=sources[:1], output=output, **request).digest
        child = context.Process(target=killed_merge_of_jobs, args=(steps, sources, jobs, output))
        child.start()
        child.join(60)
        assert child.exitcode in (0, -signal.SIGKILL)
        found = digest_file(output, OutputFormat.ZIP)
        assert found in (old, serial)
        if found == serial:
            assert load_manifest(output).digest == serial
            assert len(reports_path(output).read_text().splitlines()) == 12
        again = merge(sources=sources, output=output, **request)
        assert again.digest == digest_file(output, OutputFormat.ZIP) == serial
        left = sorted(p.name for p in output.parent.iterdir())
        assert left == ["out.zip", "out.zip.jobs.jsonl", "out.zip.manifest.json"]
        if child.exitcode == 0:
            break
    assert 10 < steps < 999


def large(first: int, last: int) -> dict[str, object]:
    """40 kB an event."""
    n = last - first
    counts = np.full(n, 5000, dtype="<i4")
    return {"n": counts, "x": Items(np.arange(first * 5000, last * 5000, dtype="<f8"), "n")}


SCRIPT = """
    import pickle, sys, resource
    from pathlib import Path
    from hpcpanda.domain.outputs import OutputFormat
    from hpcpanda.merge import merge
    sources = pickle.loads(Path(sys.argv[1]).read_bytes())
    import h5py
    print("ready", flush=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = merge(sources=sources, format=OutputFormat.HDF5, output=Path(sys.argv[2]), provenance={}, threads=2)
    print(result.digest, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def start(tmp_path: Path, sources: list[Source]) -> subprocess.Popen[str]:
    """A merge in another process, which says when it begins."""
    import pickle

    (tmp_path / "sources").write_bytes(pickle.dumps(sources))
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), tmp_path / "sources", tmp_path / "out" / "m.h5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_at_random_times(making: ModuleType, tmp_path: Path) -> None:
    """kill -9 at random moments of a merge of 72 MB, again and again, then once to the end."""
    spool = making.Spool(tmp_path / "spool")
    sources = [spool.node(f"n{k}", [(k, k + 4), (100 + k, 104 + k)], large) for k in range(0, 100, 4)]
    sources += [spool.node("rest", [(k, k + 200) for k in range(204, 1804, 200)], large)]
    sources += [spool.node("gap", [(200, 204)], large)]
    sources = [s for s in sources if s.events]
    rng = random.Random(5)
    for _ in range(6):
        process = start(tmp_path, sources)
        time.sleep(rng.uniform(0, 0.12))
        process.kill()
        process.communicate()
    process = start(tmp_path, sources)
    digest, _ = process.communicate()[0].split()
    assert digest == digest_columns(large(0, 1804))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["m.h5", "m.h5.manifest.json"]


def test_memory_stays_flat(making: ModuleType, tmp_path: Path) -> None:
    """Four times the data, with one range of 80 MB in it, does not need more memory: under 64 MB in both cases."""
    grown = []
    for name, parts in (("small", 1), ("large", 4)):
        folder = tmp_path / name
        folder.mkdir()
        spool = making.Spool(folder / "spool")
        ranges = [(0, 2000), *((k, k + 3) for k in range(2000, 2000 + 500 * parts, 3))]
        process = start(folder, [spool.node("n", ranges, large)])
        grown.append(int(process.communicate()[0].split()[1]))
    assert max(grown) < 64 * 1024
