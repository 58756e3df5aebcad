"""Tasks of jobs over the real server: the API, and what the command line says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from support.dispatcher import RunningDispatcher
from typer.testing import CliRunner

from hpcpanda.client.cli import app
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.exchange import Capacity, LeaseCommit, OutputFile, SyncRequest
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.room import Room
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy, TaskSpec

INSTANCE = "local-1"
ROOM = Room(cores=8, memory_mb=16_000, seconds=7200.0, containers=True)
TASK_FILE = """
name = "forty"
jobs = 40
container = "{here}/image.sif"

[payload]
form = "job"
command = ["sh", "{here}/one.sh", "{job}", "{cores}"]
environment = { TABLE = "{here}/table-{job}.txt" }
inputs = ["data/{job}.txt", "{here}/more/list", "/abs/file"]
outputs = ["result.txt"]

[job]
cores = 2
walltime_s = 90.0

[loss]
max_failed_events = 1

[output]
file = "forty.zip"
format = "zip"
"""

Command = Callable[..., str]


@pytest.fixture
def hpcpanda(dispatcher: RunningDispatcher, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``hpcpanda("task", "show", "1")``: what the command prints on stdout; it has to end well."""
    monkeypatch.setenv("HPCPANDA_DISPATCHER", dispatcher.url)
    monkeypatch.setenv("HPCPANDA_TOKEN_FILE", str(dispatcher.settings.user_token_file))
    monkeypatch.setenv("COLUMNS", "300")

    def run(*words: object) -> str:
        ran = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
        assert ran.exit_code == 0, ran.stderr
        return ran.stdout

    return run


def test_jobs_go_all_the_way(user: DispatcherClient, edge: DispatcherClient) -> None:
    """Submitted, leased where there is room, committed, merged; the specification arrives as it was meant."""
    payload = JobPayload(command=("sh", "-c", "echo {job}"), outputs=("a",), environment={"A": "{job}"})
    spec = TaskSpec(
        name="t",
        payload=payload,
        output=Output(file="o.zip", format=OutputFormat.ZIP),
        jobs=6,
        job=JobRequest(cores=4, walltime_s=100.0),
        loss=LossPolicy(max_failed_events=1),
    )
    task_id = user.submit(spec).task_id
    ask = {"instance": INSTANCE, "cores": 8, "seconds": 1000.0}
    assert edge.acquire("local", Capacity(**ask)).leases == ()
    assert edge.acquire("local", Capacity(**ask, room=ROOM, without=(task_id,))).leases == ()
    assert edge.acquire("local", Capacity(**ask, room=ROOM, only="events")).leases == ()
    (grant,) = edge.acquire("local", Capacity(**ask, room=ROOM, only="jobs")).leases
    assert (grant.spec, grant.events) == (spec, IntervalSet.span(0, 6))
    update = LeaseCommit(
        task_id=task_id,
        epoch=grant.epoch,
        done=IntervalSet.span(1, 6),
        failed=(FailedEvent(event=0, error="exit status 1"),),
        core_seconds=50.0,
    )
    output = OutputFile(task_id=task_id, path="/o.zip", manifest="/m", events=update.done, digest="d", size=1)
    edge.sync("local", SyncRequest(instance=INSTANCE, commits=(update,)))
    edge.sync("local", SyncRequest(instance=INSTANCE, outputs=(output,)))
    task = user.task(task_id)
    assert (task.state, task.progress.event_seconds) == (TaskState.FINISHED, 10.0)
    assert task.message == "1 of 6 jobs failed, as the task allows"


def test_a_task_file_of_jobs_is_submitted_and_shown_as_jobs(
    tmp_path: Path, hpcpanda: Command, edge: DispatcherClient, user: DispatcherClient
) -> None:
    """Every command speaks of jobs to people; programs get the API's own answer."""
    file = tmp_path / "task.toml"
    file.write_text(TASK_FILE)
    assert hpcpanda("task", "submit", file) == "task 1 accepted: 40 jobs\n"
    spec = user.task(1).spec
    here = str(tmp_path)
    assert spec.container == f"{here}/image.sif"
    assert spec.payload == JobPayload(
        command=("sh", f"{here}/one.sh", "{job}", "{cores}"),
        environment={"TABLE": f"{here}/table-{{job}}.txt"},
        inputs=(f"{here}/data/{{job}}.txt", f"{here}/more/list", "/abs/file"),
        outputs=("result.txt",),
    )
    capacity = Capacity(instance=INSTANCE, cores=8, seconds=90.0, room=ROOM)
    (grant,) = edge.acquire("local", capacity).leases
    failed = FailedEvent(event=1, error="exit status 3", attempts=3)
    update = LeaseCommit(
        task_id=1, epoch=grant.epoch, done=IntervalSet.span(0, 1), failed=(failed,), core_seconds=12.5
    )
    edge.sync("local", SyncRequest(instance=INSTANCE, commits=(update,)))

    shown = hpcpanda("task", "show", 1)
    assert re.search(r"^jobs +1 done, 6 leased, 32 ready, 1 failed of 40 *$", shown, re.MULTILINE)
    assert re.search(r"^a job asks for +2 cores, 2,000 MiB, 1 min 30 s at most *$", shown, re.MULTILINE)
    assert re.search(r"^cost of a job +12\.5 core-seconds *$", shown, re.MULTILINE)
    assert re.search(r"^now +\d+ jobs/(s|min), ", shown, re.MULTILINE)
    assert "event" not in shown
    assert re.search(r"forty +running +local +1 +40 jobs +1 +\S+ jobs/", hpcpanda("task", "list"))
    told = hpcpanda("task", "explain", 1)
    assert "6 jobs are leased to edge local." in told
    assert "the first is job 1 (payload): exit status 3" in told
    failures = hpcpanda("task", "failures", 1)
    assert re.search(r"^job +attempts +kind +error", failures)
    assert re.search(r"^ *1 +3 +payload +exit status 3", failures, re.MULTILINE)
    assert re.search(r"^file +jobs +bytes", hpcpanda("task", "outputs", 1))
    listed = json.loads(hpcpanda("task", "failures", 1, "-o", "json"))
    assert [each["event"] for each in listed["events"]] == [1]
    assert json.loads(hpcpanda("task", "show", 1, "-o", "json"))["spec"]["job"]["cores"] == 2


def test_wrong_fields_of_jobs_are_listed(shared: RunningDispatcher) -> None:
    """Only those of the form that was meant, each with its path."""
    body = {
        "name": "x",
        "payload": {"form": "job", "command": [], "shell": True},
        "output": {"file": "a.zip", "format": "zip"},
        "jobs": 3,
        "job": {"cores": 0, "wall": 3},
    }
    headers = {"Authorization": f"Bearer {shared.user_token}"}
    problem = httpx2.post(f"{shared.url}/v1/tasks", json=body, headers=headers).json()
    assert {line.partition(":")[0] for line in problem["errors"]} == {"payload.shell", "job.wall"}
    del body["payload"]["shell"], body["job"]["wall"]
    problem = httpx2.post(f"{shared.url}/v1/tasks", json=body, headers=headers).json()
    assert problem["errors"] == ["payload.command: must not be empty", "job.cores: 0 is outside 1..4096"]
