"""A job keeper with its jobs, for tests and benchmarks."""

from __future__ import annotations

import os
import select
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from hpcpanda.allocation.job_keeper import JobKeeper
from hpcpanda.allocation.job_run import JobEnded, JobRun
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.site import NodeSettings, Site
from tests.support.processes import living


def job_site(**nodes: Any) -> Site:
    """A laptop of two cores."""
    settings = {"count": 1, "cores": 2, "memory_mb": 2000, "oversubscribe": True} | nodes
    return Site(name="here", spool="/nowhere", nodes=NodeSettings(**settings))


class Keeping:
    """A keeper, and what it has said."""

    def __init__(self, scratch: Path, site: Site) -> None:
        self.scratch = scratch
        self.log = scratch.parent / "keeper.log"
        with self.log.open("ab") as log:
            self.keeper = JobKeeper(scratch=scratch, site=site, log=log.fileno())
        self.process = psutil.Process(self.keeper.pid)
        self.ended: dict[int, JobEnded] = {}
        self._runs = 0

    def run(self, *command: str, **words: Any) -> int:
        """Start a job; gives its run."""
        self._runs += 1
        of_payload = {k: words.pop(k) for k in ("environment", "inputs", "outputs") if k in words}
        of_run = {
            k: words.pop(k) for k in ("processors", "gpus", "job", "container", "attempt") if k in words
        }
        if "gpus" in of_run:
            words["gpus"] = len(of_run["gpus"])
        run = {"job": 7, "jobs": 100, "seed": 3, "task_id": 1, "epoch": 1, "attempt": 1} | of_run
        self.keeper.run(
            JobRun(
                run_id=self._runs,
                payload=JobPayload(command=command, **of_payload),
                request=JobRequest(**words),
                **run,
            )
        )
        return self._runs

    def python(self, code: str, **words: Any) -> int:
        """Start a Python program."""
        return self.run(sys.executable, "-c", code, **words)

    def result(self, run: int, *, seconds: float = 30.0) -> JobEnded:
        """How a run has ended."""
        deadline = time.monotonic() + seconds
        while run not in self.ended:
            left = deadline - time.monotonic()
            assert left > 0, f"run {run} did not end within {seconds} s\n{self.log.read_text()}"
            select.select([self.keeper.sock], [], [], left)
            notices = self.keeper.notices()
            assert notices is not None, f"the keeper is gone\n{self.log.read_text()}"
            for notice in notices:
                assert notice.run_id not in self.ended, "a run ended twice"
                self.ended[notice.run_id] = notice
        return self.ended[run]

    def folder(self, run: int) -> Path:
        """Work folder of a run."""
        return self.scratch / f"job-{run}"

    def job_processes(self) -> list[psutil.Process]:
        """Living processes with a work folder of this keeper's jobs in their environment."""
        return [process for process, _ in self._with_folder()]

    def of_run(self, run: int) -> list[psutil.Process]:
        """Living processes of one run."""
        return [process for process, folder in self._with_folder() if folder == str(self.folder(run))]

    def _with_folder(self) -> list[tuple[psutil.Process, str]]:
        def look(process: psutil.Process) -> tuple[psutil.Process, str] | None:
            folder = process.environ().get("TMPDIR", "")
            return (process, folder) if folder.startswith(f"{self.scratch}/job-") else None

        return living(look)


@contextmanager
def keeping(site: Site | None = None, place: str | None = None) -> Iterator[Keeping]:
    """A keeper in a folder of its own in ``place``; at the end nothing of it may be left."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        scratch = Path(folder).resolve() / "scratch"
        scratch.mkdir()
        kept = Keeping(scratch, site or job_site())
        try:
            yield kept
        finally:
            status = kept.keeper.close()
        assert status == 0, kept.log.read_text()
        assert not kept.log.read_text()
        assert not kept.job_processes()
        assert not list(scratch.iterdir())
        assert not [p for p in psutil.Process(os.getpid()).children() if p.pid == kept.keeper.pid]
