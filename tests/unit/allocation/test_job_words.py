"""What a job of a task that was cut into jobs is told of its part, in words and in its work folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcpanda.allocation.job_words import JobWords, job_words, lay_out
from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.splitting import JobSlice, SliceFile


def words(payload: JobPayload, content: JobSlice | None) -> JobWords:
    return job_words(payload, JobRequest(), job=3, jobs=9, seed=1, cores=1, content=content)


def made(path: Path, first: int = 0, last: int = 5) -> SliceFile:
    """A file that is there, of which some entries are to be read."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(str(path))
    return SliceFile(path=str(path), first=first, last=last)


def test_words_name_events_and_files(tmp_path: Path) -> None:
    """First, last and count go into words and variables; a word that is just {files} becomes one word a file."""
    content = JobSlice(job=3, first=30, last=37, files=(made(tmp_path / "a"), made(tmp_path / "b")))
    payload = JobPayload(
        command=("run", "{first}-{last}", "{files}", "x{files}"), environment={"N": "{count} of {jobs}"}
    )
    found = words(payload, content)
    assert found.command == ("run", "30-37", "a", "b", "x{files}")
    assert found.environment == {"N": "7 of 9"}
    assert found.read == (tmp_path / "a", tmp_path / "b")


def test_names_of_files_stay_as_they_are(tmp_path: Path) -> None:
    """A file may be called like a placeholder: it is not filled in, or the job would be told of a file that there is not."""
    names = ("{job}.txt", "{first}", "a {seed} \n b")
    content = JobSlice(job=3, first=0, last=15, files=tuple(made(tmp_path / name) for name in names))
    payload = JobPayload(command=("cat", "{files}", "{job}"), outputs=("out",))
    assert words(payload, content).command == ("cat", *names, "3")


def test_jobs_that_are_only_numbers_keep_their_braces(tmp_path: Path) -> None:
    """Nothing of a slice is filled in or left in the folder where there is none."""
    found = words(JobPayload(command=("run", "{first}", "{files}")), None)
    assert found.command == ("run", "{first}", "{files}")
    assert lay_out(found, tmp_path) == {}
    assert not list(tmp_path.iterdir())


def test_the_work_folder_tells_what_to_do(tmp_path: Path) -> None:
    """slice.json says which entries of which file, under names that never clash, and the links lead to the files."""
    files = (
        made(tmp_path / "1" / "a.root", 2, 5),
        made(tmp_path / "2" / "a.root"),
        made(tmp_path / "2" / "out"),
        made(tmp_path / "2" / "slice.json"),
        made(tmp_path / "2" / "plain"),
    )
    made(tmp_path / "plain")
    payload = JobPayload(command=("x",), inputs=(str(tmp_path / "plain"),), outputs=("out",))
    content = JobSlice(job=3, first=30, last=53, files=files)
    folder = tmp_path / "work"
    folder.mkdir()
    told = lay_out(words(payload, content), folder)
    assert told == {"HPCPANDA_SLICE": str(folder / "slice.json")}
    said = json.loads((folder / "slice.json").read_text())
    assert (said["job"], said["first"], said["last"]) == (3, 30, 53)
    assert [f["name"] for f in said["files"]] == ["a.root", "1-a.root", "2-out", "3-slice.json", "4-plain"]
    for file, wanted in zip(said["files"], files, strict=True):
        assert (file["path"], file["first"], file["last"]) == (wanted.path, wanted.first, wanted.last)
        assert (folder / file["name"]).read_text() == wanted.path
    assert (folder / "plain").read_text() == str(tmp_path / "plain")
    assert not (folder / "out").exists()


def test_a_file_that_is_gone_fails_the_job(tmp_path: Path) -> None:
    """With its path, so that somebody can look for it."""
    content = JobSlice(job=0, first=0, last=1, files=(SliceFile(path="/gone/a", first=0, last=1),))
    with pytest.raises(PayloadFailed, match="there is no file /gone/a"):
        lay_out(words(JobPayload(command=("x",)), content), tmp_path)
