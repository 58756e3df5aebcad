"""Tasks of jobs from submission to the merged archive, alone and beside a task of events."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.chain import chain_task, only_services_left, run_to_output, running, serial_digest
from support.services import Services, wait_for_task, wait_until

from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import LossPolicy, Staging, TaskSpec

ARCHIVE = Output(file="jobs.zip", format=OutputFormat.ZIP)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """An edge with two pretended nodes of two cores."""
    folder = tmp_path_factory.mktemp("jobs")
    with running(Services(folder, nodes=2, cores=2)) as shared:
        yield shared
        wait_until(lambda: only_services_left(shared), "the end of all allocations")


def job_task(script: str, jobs: int, *, max_failed: int = 0, attempts: int = 1, **request: float) -> TaskSpec:
    """Jobs that run a line of sh and leave ``out``."""
    return TaskSpec(
        name="jobs",
        jobs=jobs,
        payload=JobPayload(command=("sh", "-c", script, "sh", "{job}"), outputs=("out",)),
        job=JobRequest(**{"memory_mb": 200, "walltime_s": 60.0, **request}),  # type: ignore[arg-type]
        output=ARCHIVE,
        loss=LossPolicy(max_failed_events=max_failed, attempts=attempts, retries=0),
    )


def members(path: str) -> dict[str, str]:
    """Names and contents of an archive."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def reports(path: str) -> dict[int, dict[str, object]]:
    """The report of each job."""
    lines = Path(f"{path}.jobs.jsonl").read_text().splitlines()
    return {line["job"]: line for line in map(json.loads, lines)}


def test_every_job_is_in_the_archive_once(services: Services) -> None:
    """Many short jobs: each output is there under its number, with a report of what the run was like."""
    done = run_to_output(services, job_task('echo "job $1" > out', 60))
    assert members(done.output.path) == {f"{n:02d}/out": f"job {n}\n" for n in range(60)}
    found = reports(done.output.path)
    assert sorted(found) == list(range(60))
    assert all(r["exit_status"] == 0 and r["attempt"] == 1 for r in found.values())


def test_jobs_and_events_share_the_nodes(services: Services) -> None:
    """Jobs of one and of two cores run beside a task of events on the same nodes; all end, none twice."""
    events = chain_task("generate", events=4000, settings={"event_s": 0.002})
    with services.client() as client:
        of_events = client.submit(events).task_id
        narrow = client.submit(job_task('sleep 0.3; echo "$1" > out', 12)).task_id
        wide = client.submit(job_task('sleep 0.4; echo "$1" > out', 6, cores=2)).task_id
        tasks = {t: wait_for_task(client, t, seconds=120) for t in (of_events, narrow, wide)}
        assert {t.state for t in tasks.values()} == {TaskState.DONE}, [t.message for t in tasks.values()]
        (output,) = client.outputs(of_events).files
        assert output.digest == serial_digest(events, services.folder / "serial")
        for task_id, jobs in ((narrow, 12), (wide, 6)):
            (output,) = client.outputs(task_id).files
            assert len(members(output.path)) == jobs


def test_failing_jobs_are_listed_with_their_reason(services: Services) -> None:
    """Jobs that fail, use too much memory or take too long are set aside one by one; the others are in the archive."""
    script = (
        'case "$1" in 3) echo "no such file" >&2; exit 7;; 5) sleep 60;; '
        '6) exec python3 -c "a = bytearray(400 << 20); import time; time.sleep(30)";; esac; echo "$1" > out'
    )
    with services.client() as client:
        task_id = client.submit(job_task(script, 9, max_failed=3, walltime_s=4.0)).task_id
        task = wait_for_task(client, task_id, seconds=120)
        assert task.state is TaskState.FINISHED, task.message
        failed = {f.event: f.error for f in client.failures(task_id).events}
        (output,) = client.outputs(task_id).files
    assert sorted(failed) == [3, 5, 6]
    assert "exit status 7" in failed[3]
    assert "no such file" in failed[3]
    assert "walltime" in failed[5]
    assert "the limit is 200 MiB" in failed[6]
    assert sorted(members(output.path)) == [f"{n}/out" for n in (0, 1, 2, 4, 7, 8)]


def test_a_job_that_fits_nowhere_waits_with_the_reason(services: Services) -> None:
    """More cores than a node has: nothing starts, and the user is told why."""
    with services.client() as client:
        task_id = client.submit(job_task("echo > out", 2, cores=3)).task_id
        wait_until(
            lambda: any("asks for 3 cores" in r for r in client.explain(task_id).reasons), "the explanation"
        )
        assert client.task(task_id).state is TaskState.READY
        client.cancel(task_id)


def test_inputs_are_copied_in_and_the_output_is_moved_out(services: Services, tmp_path: Path) -> None:
    """Jobs read the spool's copies, not the originals; the archive, its reports and its manifest end where asked."""
    for number in range(4):
        (tmp_path / f"in-{number}").write_text(f"input {number}")
    there = tmp_path / "there"
    there.mkdir()
    plain = job_task('readlink -f "in-$1" > out; cat "in-$1" >> out', 4)
    assert isinstance(plain.payload, JobPayload)
    spec = replace(
        plain,
        payload=replace(plain.payload, inputs=(f"{tmp_path}/in-{{job}}",)),
        staging=Staging(inputs="copy", destination=str(there)),
    )
    with services.client() as client:
        task_id = client.submit(spec).task_id
        task = wait_for_task(client, task_id, seconds=90)
        assert task.state is TaskState.DONE, task.message
        (output,) = client.outputs(task_id).files
    assert Path(output.path).parent == there
    for name, content in members(output.path).items():
        where, text = content.split("\n", 1)
        assert text == f"input {name.partition('/')[0]}"
        assert Path(where).is_relative_to(services.spool)
    assert sorted(reports(output.path)) == [0, 1, 2, 3]
    wait_until(lambda: not (services.spool / "tasks" / str(task_id)).exists(), "the clean-up of the copies")
