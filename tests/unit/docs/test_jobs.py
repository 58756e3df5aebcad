"""What the how-to of jobs shows works as it stands."""

from __future__ import annotations

import re
import runpy
import zipfile
from pathlib import Path

import pytest

from hpcpanda.allocation.job_process import job_variables
from hpcpanda.allocation.job_run import JobRun
from hpcpanda.allocation.job_words import job_words
from hpcpanda.client.job_check import check_jobs
from hpcpanda.client.task_file import load_task
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.site import NodeSettings

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture
def how_to(tmp_path: Path) -> Path:
    """The named files of the how-to, in a folder."""
    text = (DOCS / "how-to" / "run-jobs.md").read_text()
    for name, content in re.findall(r"```\w+\n# (\S+)\n(.*?)```", text, re.DOTALL):
        (tmp_path / name).write_text(content)
    return tmp_path


def test_the_task_of_the_how_to_is_sound(how_to: Path) -> None:
    """Its command and its task file pass the check that it tells to run."""
    report = check_jobs(load_task(how_to / "task.toml"), jobs=3, workers=2)
    assert report.ok, report
    assert report.jobs == (0, 999, 1999)


def test_the_task_in_python_is_the_one_in_the_file(how_to: Path) -> None:
    """But for the path of the script."""
    task = runpy.run_path(str(how_to / "submit.py"))["task"]
    from_file = load_task(how_to / "task.toml")
    assert isinstance(from_file.payload, JobPayload)
    assert task.job == from_file.job
    assert (task.jobs, task.output, task.name) == (from_file.jobs, from_file.output, from_file.name)
    assert task.payload.command[2:] == from_file.payload.command[2:]
    assert task.payload.outputs == from_file.payload.outputs


def test_the_reader_of_the_how_to_reads_members(how_to: Path, tmp_path: Path) -> None:
    """Members in folders with the number of the job."""
    with zipfile.ZipFile(tmp_path / "sums.zip", "w") as files:
        files.writestr("0000/sum.txt", "zero")
        files.writestr("0017/sum.txt", "seventeen")
    read = runpy.run_path(str(how_to / "read.py"))
    assert read["sums"](tmp_path / "sums.zip") == {0: "zero", 17: "seventeen"}


def test_the_reference_says_what_a_job_is_told(tmp_path: Path) -> None:
    """No placeholder is promised that is not filled in, and every variable is named."""
    text = (DOCS / "reference" / "payload.md").read_text()
    section = text.split("## Job\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`\{(\w+)\}`", section)) - {"here"}
    payload = JobPayload(command=tuple(f"{{{name}}}" for name in sorted(named)))
    words = job_words(payload, JobRequest(), job=1, jobs=2, seed=3, cores=4)
    assert not any("{" in word for word in words.command), "named, but not filled in"
    run = JobRun(
        run_id=1,
        task_id=1,
        epoch=1,
        job=1,
        attempt=1,
        jobs=2,
        seed=3,
        payload=payload,
        request=JobRequest(),
    )
    nodes = NodeSettings(count=1, cores=1, memory_mb=64)
    for variable in set(job_variables(run, {}, nodes, {}, tmp_path)) - {"PWD"}:
        assert f"`{variable}`" in section
