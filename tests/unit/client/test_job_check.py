"""The checker of jobs finds outputs that differ, runs that fail, and requests that do not suit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hpcpanda.client.cli import app
from hpcpanda.client.job_check import JobsReport, check_jobs
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.splitting import JobSplit
from hpcpanda.domain.task import TaskSpec

ZIP = Output(file="o.zip", format=OutputFormat.ZIP)


def task(script: str, *, jobs: int = 5, outputs: tuple[str, ...] = ("out",), **job: Any) -> TaskSpec:
    request = JobRequest(**{"walltime_s": 5.0, "memory_mb": 200, **job})
    payload = JobPayload(command=("sh", "-c", script), outputs=outputs)
    return TaskSpec(name="t", payload=payload, output=ZIP, jobs=jobs, job=request)


def check(spec: TaskSpec, *, jobs: int = 3, workers: int = 2) -> JobsReport:
    return check_jobs(spec, jobs=jobs, workers=workers)


def test_jobs_that_depend_on_nothing_else_are_sound() -> None:
    """The first, the last and one between run twice; costs and sizes are told."""
    report = check(task("echo {job} of {jobs}, {seed} > out; echo said"))
    assert report.ok
    assert report.jobs == (0, 2, 4)
    assert [c.job for c in report.costs] == [0, 0, 2, 2, 4, 4]
    assert all(c.wall_s > 0 and c.output_bytes > 10 for c in report.costs)
    assert not any("leaves" in w for w in report.warnings)


@pytest.mark.parametrize(
    ("jobs", "wanted", "tried"), [(1, 3, (0,)), (2, 3, (0, 1)), (9, 1, (0,)), (9, 9, range(9))]
)
def test_no_more_jobs_are_tried_than_there_are(jobs: int, wanted: int, tried: tuple[int, ...]) -> None:
    """Each once, in order."""
    assert check(task("echo > out", jobs=jobs), jobs=wanted).jobs == tuple(tried)


def test_an_output_that_knows_its_attempt_differs() -> None:
    """Named are the job, the file and the byte; the file that is the same is not."""
    script = "echo same > out; [ {job} = 2 ] && echo 'job '$HPCPANDA_ATTEMPT > other || echo > other"
    report = check(task(script, outputs=("out", "other")))
    assert not report.ok
    (difference,) = report.differences
    assert (difference.job, difference.file) == (2, "other")
    assert difference.detail == "byte 4 differs between two runs (6 and 6 bytes)"


def test_a_longer_output_differs_where_the_other_ends() -> None:
    """Also beyond the first mebibyte, which is compared block by block.

    The first attempt is named first, whichever ended first.
    """
    script = "head -c 1048580 /dev/zero > out; [ $HPCPANDA_ATTEMPT = 2 ] && echo >> out || sleep 0.3"
    (difference,) = check(task(script), jobs=1).differences
    assert difference.detail == "byte 1,048,580 differs between two runs (1,048,580 and 1,048,581 bytes)"


def test_failures_are_told_with_what_was_said() -> None:
    """A status, an output that is missing, too much time: each run with its reason."""
    script = "case {job} in 0) echo no luck >&2; exit 3;; 1) true;; 2) exec sleep 60;; *) echo > out;; esac"
    report = check(task(script, jobs=4, walltime_s=0.5), jobs=4, workers=4)
    assert not report.ok
    errors = {f.job: f.error for f in report.failures}
    assert "status 3" in errors[0]
    assert "did not leave 'out'" in errors[1]
    assert "job.walltime_s" in errors[2]
    assert {f.printed for f in report.failures if f.job == 0} == {"no luck\n"}
    assert [(f.job, f.attempt) for f in report.failures] == [(j, a) for j in (0, 1, 2) for a in (1, 2)]
    assert {c.job for c in report.costs} == {3}


def test_doubtful_requests_are_warned_of() -> None:
    """Too little time, files that go lost, nothing kept, GPUs, cores that are not there."""
    report = check(
        task("sleep 2.5; echo > left; mkdir d; echo > d/e", outputs=(), walltime_s=3.0, gpus=1, cores=4096),
        jobs=1,
        workers=1,
    )
    assert report.ok
    text = "\n".join(report.warnings)
    for said in ("payload.outputs is empty", "ask for more walltime_s", ": d/e, left;", "GPUs", "4096 cores"):
        assert said in text
    roomy = "\n".join(check(task("echo > out", walltime_s=1000.0), jobs=1).warnings)
    assert "with less walltime_s it fits into shorter windows" in roomy


def test_memory_close_to_the_limit_is_warned_of() -> None:
    """Before a job that is a little larger is ended."""
    script = "import time; x = bytearray(60 << 20); time.sleep(0.4); open('out', 'w')"
    spec = TaskSpec(
        name="t",
        payload=JobPayload(command=("python3", "-SEc", script), outputs=("out",)),
        output=ZIP,
        jobs=1,
        job=JobRequest(memory_mb=80, walltime_s=30.0),
    )
    report = check(spec)
    assert report.ok, report
    assert any("of 80 MiB" in w and "memory_mb" in w for w in report.warnings), report


@pytest.mark.parametrize(
    ("change", "field"),
    [({"job": JobRequest(nodes=2)}, "job.nodes"), ({"container": "image"}, "container")],
)
def test_what_needs_a_site_is_refused(change: dict[str, Any], field: str) -> None:
    """With the reason, and what to do instead."""
    fields = {"name": "t", "payload": JobPayload(command=("true",)), "output": ZIP, "jobs": 1}
    with pytest.raises(InvalidValue, match=f"^{field}: "):
        check(TaskSpec(**(fields | change)))


def test_events_are_for_the_other_checker() -> None:
    """A task of events is no task of jobs."""
    payload = CommandPayload(command=("a", "{output}"))
    with pytest.raises(InvalidValue, match=r"^payload\.form: "):
        check(TaskSpec(name="t", payload=payload, output=ZIP, events=1))


TOML = """
name = "t"
jobs = 3
[payload]
form = "job"
command = ["sh", "-c", "{script}"]
outputs = ["out"]
[job]
walltime_s = 5.0
[output]
file = "o.zip"
format = "zip"
"""


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("echo > out", 0, ["0, 1, 2; each twice", "core-seconds", "the same files in both runs"]),
        ("echo $HPCPANDA_ATTEMPT > out", 3, ["DIFFERS", "job 0, out: byte 0", "not fit for submission"]),
        ("echo oh >&2; exit 4", 3, ["failed", "status 4; it said: oh", "not fit for submission"]),
    ],
)
def test_the_command_tells_what_was_found(tmp_path: Path, script: str, code: int, says: list[str]) -> None:
    """As a table, with the exit status of the other payloads."""
    file = tmp_path / "task.toml"
    file.write_text(TOML.replace("{script}", script))
    ran = CliRunner().invoke(app, ["payload", "check", str(file)], catch_exceptions=False)
    assert ran.exit_code == code
    for words in says:
        assert words in ran.stdout


def test_jobs_of_files_are_tried_with_their_files(tmp_path: Path) -> None:
    """Cut as the dispatcher would: each is told its files and events, and what is laid out for it counts as left by nobody."""
    files = []
    for n in range(5):
        path = tmp_path / f"f{n}.txt"
        path.write_text(f"{n}\n")
        files.append(InputFile(path=str(path), events=10))
    script = 'cat "$@" > out; echo {first} {count} >> out; grep -c name "$HPCPANDA_SLICE" >> out'
    spec = replace(
        task(""),
        payload=JobPayload(command=("sh", "-c", script, "sh", "{files}"), outputs=("out",)),
        jobs=None,
        inputs=Inputs(format=InputFormat.LHE, files=tuple(files)),
        split=JobSplit(files_per_job=2),
    )
    report = check(spec)
    assert report.ok
    assert report.jobs == (0, 1, 2)
    assert [c.output_bytes for c in report.costs] == [11, 11, 12, 12, 10, 10]
    assert not any("leaves" in w for w in report.warnings)
    wrong = replace(spec, payload=JobPayload(command=("sh", "-c", "exit 3", "sh", "{files}")))
    assert {f.job for f in check(wrong).failures} == {0, 1, 2}


def test_jobs_of_events_and_scouts_are_tried() -> None:
    """The first, the last and one between of a million; and of a task that has to be measured, its scouts."""
    spec = replace(
        task("echo {first} {last} > out"), jobs=None, events=10**6, split=JobSplit(events_per_job=7)
    )
    assert check(spec).jobs == (0, 71428, 142857)
    assert [c.output_bytes for c in check(spec).costs][-1] == len("999999 1000000\n")
    learning = replace(spec, split=JobSplit(max_output_mb=5))
    assert check(learning, jobs=100, workers=4).jobs == tuple(range(10))


def test_a_dataset_is_not_tried() -> None:
    """Its files are known to the dispatcher; it is said what to do."""
    inputs = Inputs(format=InputFormat.LHE, dataset="user.ada:data")
    spec = replace(task("true"), jobs=None, inputs=inputs, split=JobSplit(files_per_job=1))
    with pytest.raises(InvalidValue, match=r"inputs.dataset: a dataset cannot be tried here; name some"):
        check(spec)
