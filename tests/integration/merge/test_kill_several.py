"""A merge into several files that is killed anywhere is done again with the same files, those that stood untouched."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.merge import Source, digest_bytes, merge_files, merging

STEPS = ("pwrite", "writev", "fsync", "fdatasync", "open", "replace", "rename", "unlink")
OUTPUT = Output(file="out.txt", format=OutputFormat.CONCAT, max_events=15)


def killed(steps: int, sources: list[Source], folder: Path) -> None:
    """What the child process does: it is killed just before the n-th step that touches the disk."""
    merging._FLUSH_S = 1e-9  # type: ignore[misc]
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
    merge_files(sources=sources, output=OUTPUT, folder=folder, rest=False, provenance={}, threads=1)


def test_killed_before_any_step_on_disk(making: ModuleType, tmp_path: Path) -> None:
    """Killed before every fifth step on the disk in turn: each file has the digest of a serial run of its events, nothing
    else is left, and files that were whole are not written again."""
    sources = making.Spool(tmp_path / "spool").nodes(60, making.plain_bytes, roll=2000)
    request: dict[str, Any] = {"sources": sources, "output": OUTPUT, "rest": False, "provenance": {}}
    context = multiprocessing.get_context("fork")
    for steps in range(0, 1000, 5):
        folder = tmp_path / str(steps)
        folder.mkdir()
        child = context.Process(target=killed, args=(steps, sources, folder))
        child.start()
        child.join(60)
        assert child.exitcode in (0, -signal.SIGKILL)
        stood = {path.name: path.stat().st_ino for path in folder.glob("out.*.txt")}
        made = merge_files(folder=folder, **request)
        for file in made:
            assert file.digest == digest_bytes(
                making.plain_bytes(r.first, r.last) for r in file.events.ranges()
            )
        assert all((folder / name).stat().st_ino == inode for name, inode in stood.items())
        names = [file.path.name for file in made]
        assert sorted(p.name for p in folder.iterdir()) == sorted(
            [*names, *(f"{name}.manifest.json" for name in names)]
        )
        if child.exitcode == 0:
            break
    assert 30 < steps < 999
    assert len(made) >= 3
    whole = IntervalSet.of(r for file in made for r in file.events.ranges())
    assert whole == IntervalSet.span(0, len(whole))
