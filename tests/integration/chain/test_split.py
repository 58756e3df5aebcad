"""Tasks that are cut into jobs, with real jobs, from submission to the merged archive."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.chain import only_services_left, run_to_output, running
from support.services import Services, wait_for_task, wait_until

from hpcpanda.client.task_file import load_task
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.splitting import JobSplit
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """An edge with two pretended nodes of two cores."""
    folder = tmp_path_factory.mktemp("split")
    with running(Services(folder, nodes=2, cores=2)) as shared:
        yield shared
        wait_until(lambda: only_services_left(shared), "the end of all allocations")


def cut_task(command: tuple[str, ...], **fields: Any) -> TaskSpec:
    """Jobs that leave ``out``."""
    request = fields.pop("job", JobRequest(memory_mb=400, walltime_s=60.0))
    return TaskSpec(
        name="cut",
        payload=JobPayload(command=command, outputs=("out",)),
        output=Output(file="jobs.zip", format=OutputFormat.ZIP),
        job=request,
        **fields,
    )


def members(path: str) -> list[str]:
    """Contents of an archive, in order of their names."""
    with zipfile.ZipFile(path) as archive:
        return [archive.read(name).decode() for name in sorted(archive.namelist())]


def lines(folder: Path, *counts: int) -> Inputs:
    """Files of so many lines, all different, that are taken for their entries."""
    files = []
    number = 0
    for n, count in enumerate(counts):
        path = folder / f"part{n}" / "data.txt"
        path.parent.mkdir()
        path.write_text("".join(f"event {number + i}\n" for i in range(count)))
        files.append(InputFile(path=str(path), events=count))
        number += count
    return Inputs(format=InputFormat.LHE, files=tuple(files))


READ = """
import json, os, sys
with open(os.environ["HPCPANDA_SLICE"]) as file:
    mine = json.load(file)
assert [f["name"] for f in mine["files"]] == sys.argv[3:], sys.argv
with open("out", "w") as out:
    for part in mine["files"]:
        with open(part["name"]) as file:
            out.writelines(file.readlines()[part["first"] : part["last"]])
count = sum(1 for _ in open("out"))
assert count == int(sys.argv[2]) - int(sys.argv[1]) == mine["last"] - mine["first"]
"""


def test_every_job_gets_its_file(services: Services, tmp_path: Path) -> None:
    """Three files, a job each: what each job reads is its file, by the name that it is told."""
    command = ("sh", "-c", 'cat "$1" > out', "sh", "{files}")
    done = run_to_output(
        services, cut_task(command, inputs=lines(tmp_path, 3, 1, 4), split=JobSplit(files_per_job=1))
    )
    texts = [(tmp_path / f"part{n}" / "data.txt").read_text() for n in range(3)]
    assert members(done.output.path) == texts


def test_files_of_any_kind_and_name_are_an_entry_each(services: Services, tmp_path: Path) -> None:
    """Five files that a pattern names, two a job: each is read whole, once, whatever is in its name, the empty one, too."""
    texts = {"a b.txt": "one", "b{job}.txt": "two", "c\nd.txt": "three", "d☃'.txt": "", "-e.txt": "five"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text + "\n" if text else "")
    file = tmp_path / "task.toml"
    file.write_text(
        """
        name = "any"
        inputs = {format = "file", files = ["*.txt"]}
        split.files_per_job = 2
        job = {memory_mb = 400, walltime_s = 60.0}
        output = {file = "jobs.zip", format = "zip"}
        [payload]
        form = "job"
        command = ["sh", "-c", 'cat -- "$@" > out', "sh", "{files}"]
        outputs = ["out"]
        """
    )
    spec = load_task(file)
    assert spec.event_count == 5
    done = run_to_output(services, spec)
    assert members(done.output.path) == ["five\none\n", "two\nthree\n", ""]


def test_events_are_split_across_files_and_each_is_read_once(services: Services, tmp_path: Path) -> None:
    """Jobs of four events over files of other lengths, all of one name: all events in order, none twice."""
    command = ("python3", "-c", READ, "{first}", "{last}", "{files}")
    done = run_to_output(
        services, cut_task(command, inputs=lines(tmp_path, 3, 9, 1, 6), split=JobSplit(events_per_job=4))
    )
    found = members(done.output.path)
    assert [text.count("\n") for text in found] == [4, 4, 4, 4, 3]
    assert "".join(found) == "".join(f"event {n}\n" for n in range(19))


def test_a_job_on_two_nodes_is_told_its_events(services: Services) -> None:
    """An MPI job has its slice in its folder and its words as others do."""
    script = 'test "$PMI_RANK" != 0 || { cat "$HPCPANDA_SLICE" > out; echo "$1 $2" >> out; }'
    done = run_to_output(
        services,
        cut_task(
            ("sh", "-c", script, "sh", "{first}", "{last}"),
            events=10,
            split=JobSplit(events_per_job=5),
            job=JobRequest(nodes=2, memory_mb=400, walltime_s=60.0),
        ),
    )
    found = [text.split("\n") for text in members(done.output.path)]
    assert [json.loads(said) for said, *_ in found] == [
        {"job": n, "first": 5 * n, "last": 5 * n + 5, "files": []} for n in range(2)
    ]
    assert [words for _, words, _ in found] == ["0 5", "5 10"]


def test_scouts_learn_what_jobs_need(services: Services) -> None:
    """Nothing is known of the events: scouts run, the dispatcher hears what they used, and cuts the rest by that."""
    script = (
        "import sys, time; a, b = map(int, sys.argv[1:]); time.sleep(0.05 * (b - a)); "
        "open('out', 'w').writelines(f'{n}\\n' for n in range(a, b))"
    )
    spec = cut_task(
        ("python3", "-c", script, "{first}", "{last}"),
        events=160,
        split=JobSplit(max_walltime_s=5.0, events_per_job=40),
        scouts=3,
        job=JobRequest(memory_mb=400, walltime_s=300.0),
    )
    with services.client() as client:
        task_id = client.submit(spec).task_id
        assert client.task(task_id).state is TaskState.SCOUTING
        wait_until(
            lambda: "scouting" in " ".join(client.explain(task_id).reasons), "scouting to be explained"
        )
        task = wait_for_task(client, task_id, seconds=90)
        assert task.state is TaskState.DONE, task.message
        (output,) = client.outputs(task_id).files
    found = members(output.path)
    assert "".join(found) == "".join(f"{n}\n" for n in range(160))
    counts = [text.count("\n") for text in found]
    assert counts[:3] == [10, 10, 10]
    assert max(counts[3:]) > 10, "the others hold more than scouts do"
    assert task.progress.total == len(counts) == task.progress.done
