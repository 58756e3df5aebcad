"""What a task may say about staging, and where staged files lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from hpcpanda_edge.staging.places import Destination, input_folder, sources, staged_spec

from hpcpanda.allocation.job_words import job_words
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload, CommandPayload
from hpcpanda.domain.site import LimitSettings
from hpcpanda.domain.task import Staging, TaskSpec

SPOOL = Spool(Path("/spool"))


def events_task(*files: InputFile, staging: Staging) -> TaskSpec:
    return TaskSpec(
        name="t",
        payload=CommandPayload(command=("run", "{output}")),
        inputs=Inputs(format=InputFormat.LHE, files=files),
        output=Output(file="t.dat", format=OutputFormat.CONCAT),
        staging=staging,
    )


def jobs_task(*inputs: str, jobs: int = 10, staging: Staging) -> TaskSpec:
    return TaskSpec(
        name="t",
        payload=JobPayload(command=("run",), inputs=inputs),
        jobs=jobs,
        output=Output(file="t.zip", format=OutputFormat.ZIP),
        staging=staging,
    )


COPY = Staging(inputs="copy")


def test_files_of_events_are_read_from_copies_under_their_own_names() -> None:
    """Two files of one name do not meet; all else of the task stays."""
    spec = events_task(
        InputFile(path="/a/x.lhe", events=4), InputFile(path="/b/x.lhe", events=3), staging=COPY
    )
    staged = staged_spec(spec, SPOOL, 7)
    assert staged.input_paths == ("/spool/tasks/7/input/0/x.lhe", "/spool/tasks/7/input/1/x.lhe")
    assert staged.event_count == 7
    assert [(s.cover.first, s.cover.last) for s in sources(spec)] == [(0, 4), (4, 7)]


def test_files_of_jobs_are_found_where_they_are_copied_to() -> None:
    """What a job fills in for itself is what the edge has filled in for the copy."""
    spec = jobs_task("/d/{job}/in.root", "/d/j{job}.{jobs}", "/d/common", staging=COPY)
    staged = staged_spec(spec, SPOOL, 7)
    assert isinstance(staged.payload, JobPayload)
    folder = input_folder(SPOOL, 7)
    for job in (0, 9):
        words = job_words(staged.payload, JobRequest(), job=job, jobs=10, seed=1, cores=1)
        assert words.inputs == tuple(s.copy(folder, job) for s in sources(spec))
        assert words.inputs == (
            folder / "0" / str(job) / "in.root",
            folder / "1" / str(job) / f"j{job}.{{jobs}}",
            folder / "2" / "common",
        )


def test_a_task_in_place_stays_as_it_is() -> None:
    """Nothing is copied unless it is asked for."""
    spec = jobs_task("/d/{job}", staging=Staging())
    assert staged_spec(spec, SPOOL, 7) is spec
    assert sources(spec) == ()


@pytest.mark.parametrize("path", ["/d/..", "/d/.", "/d/", "/"])
def test_what_does_not_name_a_file_is_refused(path: str) -> None:
    """A copy never leaves the task's folder, for its name is a plain one."""
    with pytest.raises(InvalidValue, match=r"inputs.* file"):
        jobs_task(path, staging=COPY)
    with pytest.raises(InvalidValue, match=r"staging\.inputs.*does not name a file"):
        events_task(InputFile(path=path, events=1), staging=COPY)


def test_there_must_be_something_to_copy() -> None:
    """A slip in the task file is told at once."""
    with pytest.raises(InvalidValue, match="no inputs to copy"):
        TaskSpec(
            name="t", payload=CallablePayload(call="m:f"), events=1, output=Output(file="t"), staging=COPY
        )


@pytest.mark.parametrize("folder", ["rel", "/a/../b", "/a\0b", "", "/a/{home}", "/a/{}/b"])
def test_a_destination_is_an_absolute_folder(folder: str) -> None:
    """Only {site} and {task} are filled in."""
    with pytest.raises(InvalidValue, match=r"staging\.destination"):
        Staging(destination=folder)


@pytest.mark.parametrize("checksum", ["adler32:123", "md5:" + 32 * "0", "sha256:" + 64 * "x", "00000001", ""])
def test_a_checksum_names_its_algorithm(checksum: str) -> None:
    """Anything else is refused."""
    with pytest.raises(InvalidValue, match="checksum"):
        InputFile(path="/a", events=1, checksum=checksum)
    with pytest.raises(InvalidValue, match="size"):
        InputFile(path="/a", events=1, size=0)


def test_a_destination_is_filled_in() -> None:
    """Folders before the first placeholder have to be there."""
    spec = jobs_task("/d", staging=Staging(destination="/out/{site}/run-{task}/x"))
    destination = Destination.of(spec, "here", 7)
    assert destination == Destination(base=Path("/out"), folder=Path("/out/here/run-7/x"))
    made = OutputFile(
        task_id=7,
        path="/spool/tasks/7/output/t.zip",
        manifest="/spool/tasks/7/output/t.zip.manifest.json",
        events=IntervalSet.span(0, 10),
        digest="sha256:0",
        size=5,
    )
    moved = destination.moved(made)
    assert moved.path == "/out/here/run-7/x/t.zip"
    assert moved.manifest == "/out/here/run-7/x/t.zip.manifest.json"
    assert (moved.size, moved.digest, moved.events) == (made.size, made.digest, made.events)
    assert Destination.of(jobs_task("/d", staging=Staging()), "here", 7) is None
    plain = Destination.of(jobs_task("/d", staging=Staging(destination="/out/x")), "here", 7)
    assert plain == Destination(base=Path("/out/x"), folder=Path("/out/x"))


def test_limits_of_staging_are_checked() -> None:
    """Like every other number of a site file."""
    for wrong in ({"staging_streams": 0}, {"staging_streams": 65}, {"staging_reserve_mb": -1}):
        with pytest.raises(InvalidValue, match=next(iter(wrong))):
            LimitSettings(**wrong)
