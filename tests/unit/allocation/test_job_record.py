"""How a job's outcome is journalled, and how much of the node its jobs hold."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcpanda.allocation.job_messages import JobLoad
from hpcpanda.allocation.job_record import JobJournals, failure_text
from hpcpanda.allocation.job_run import JobEnded
from hpcpanda.allocation.job_usage import JobUsage
from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.ledger import ERROR_TEXT_LIMIT, FailedEvent
from hpcpanda.events.bundle import JobReport
from hpcpanda.events.journal import JournalHeader, core_seconds, read_journal
from hpcpanda.events.recorder import Recorder

REPORT = JobReport(
    job=7,
    attempt=1,
    host="here",
    exit_status=0,
    started=100.0,
    wall_s=2.5,
    cpu_s=4.0,
    max_rss_mb=1.0,
)


def journals(folder: Path) -> JobJournals:
    """Of one rank, in a folder."""

    def begin(task_id: int) -> Recorder:
        header = JournalHeader(
            task_id=task_id,
            allocation_id="a",
            pack_id="p",
            incarnation=0,
            rank=0,
            host="here",
            cores=4,
            started=time.time(),
        )
        return Recorder(
            folder / f"{task_id}.journal", header, roll_bytes=1 << 20, sync_s=0.01, on_durable=lambda _: None
        )

    return JobJournals(begin)


def test_an_entry_says_core_seconds_and_the_first_core(tmp_path: Path) -> None:
    """A job on three cores for 2.5 s is 7.5 core-seconds; tasks have journals of their own."""
    (tmp_path / "out").write_bytes(b"result")
    ended = JobEnded(run_id=1, report=REPORT, folder=tmp_path, outputs=("out",))
    written = journals(tmp_path)
    written.record(5, ended, epoch=3, slots=(2, 3, 4))
    written.set_aside(6, 4, FailedEvent(event=8, error="bad"))
    written.close(5)
    [entry] = read_journal(tmp_path / "5.journal").entries
    assert (entry["epoch"], entry["slot"], entry["first"], entry["last"]) == (3, 2, 7, 8)
    assert (entry["wall_s"], entry["cpu_s"], entry["start"]) == (2.5, 4.0, 100.0)
    assert (entry["cores"], core_seconds(read_journal(tmp_path / "5.journal").entries)) == (3, 7.5)
    written.close_all()
    [failed] = read_journal(tmp_path / "6.journal").failed
    assert (failed.epoch, failed.events[0].event) == (4, 8)


@pytest.mark.parametrize("kind", ["missing", "link", "pipe"])
def test_an_output_that_is_no_file_any_more_is_the_jobs_failure(tmp_path: Path, kind: str) -> None:
    """Nothing is journalled, nothing waits, and no link is followed."""
    output = tmp_path / "out"
    if kind == "link":
        output.symlink_to("/etc/hostname")
    elif kind == "pipe":
        os.mkfifo(output)
    written = journals(tmp_path)
    ended = JobEnded(run_id=1, report=REPORT, folder=tmp_path, outputs=("out",))
    with pytest.raises(PayloadFailed, match="'out' cannot be read"):
        written.record(5, ended, epoch=3, slots=(0,))
    written.close_all()
    assert not len(read_journal(tmp_path / "5.journal").entries)


def test_the_error_text_ends_with_stderr_and_keeps_to_its_limit() -> None:
    """The last lines of stderr say most."""
    failed = replace(REPORT, error="it ended with exit status 1", stderr_tail="x" * 5000 + " the reason\n")
    text = failure_text(failed)
    assert len(text) == ERROR_TEXT_LIMIT
    assert text.startswith("it ended with exit status 1; stderr ends with: xxx")
    assert text.endswith("the reason")
    assert failure_text(replace(REPORT, error="no memory", stdout_tail=" \n")) == "no memory"
    silent = replace(REPORT, error="it ended", stdout_tail="42\nsegmentation violation\n", stderr_tail="\n")
    assert failure_text(silent) == "it ended; stdout ends with: 42\nsegmentation violation"
    assert len(failure_text(replace(failed, error="e" * 5000))) == ERROR_TEXT_LIMIT


def test_usage_is_counted_once_for_cores_and_for_tasks() -> None:
    """Each view has its own window."""
    usage = JobUsage(3, 0.0)
    usage.begin(1, 5, (0, 1), 1.0)
    assert usage.occupancy(2.0) == (0.5, 0.5, 0.0)
    usage.end(1, 3.0)
    usage.begin(2, 6, (2,), 3.0)
    assert usage.occupancy(4.0) == (0.5, 0.5, 0.5)
    loads = {load.task_id: load for load in usage.loads(4.0)}
    assert loads[5] == JobLoad(task_id=5, cores=0, busy=1.0)
    assert loads[6] == JobLoad(task_id=6, cores=1, busy=0.25)
