"""A chain of two tasks on local allocations: one reads what the other is still writing."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.chain import chain_task, running, serial_digest
from support.services import Services, wait_for_task, wait_until

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.splitting import JobSplit
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import Resources, TaskSpec

EVENTS, MOST, GATE = 60, 10, 50
RAW = "user.test:raw"


@pytest.fixture
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Two nodes: the first task has work for one."""
    services = Services(tmp_path_factory.mktemp("growing"), nodes=2, cores=1)
    with services.site_file.open("a") as site:
        site.write("[limits]\nallocations = 2\n")
    with running(services) as started:
        yield started


def check_files(client: DispatcherClient, task_id: int) -> None:
    """The files of a task hold every event once, and each has the content of a serial run of its events."""
    files = client.outputs(task_id).files
    whole = IntervalSet.of(r for file in files for r in file.events.ranges())
    assert whole == IntervalSet.span(0, EVENTS)
    assert sum(len(file.events) for file in files) == EVENTS
    assert len(files) >= EVENTS // MOST
    for file in files:
        with h5py.File(file.path) as opened:
            expected = np.concatenate([np.arange(r.first, r.last) for r in file.events.ranges()])
            assert np.array_equal(opened["event"], expected)


def test_a_task_reads_what_another_still_writes(services: Services, tmp_path: Path) -> None:
    """It has done some of its events while the other cannot make its last ones; at the end it is what a serial run over the
    files gives, whatever the order in which they came."""
    gate = tmp_path / "gate"
    small = {"module": "reading_payload", "max_range": 5, "resources": Resources(event_seconds=0.05)}
    output = Output(file="raw.h5", max_events=MOST, dataset=RAW)
    settings = {"gate": str(gate), "gate_at": GATE}
    upstream = chain_task("gated", events=EVENTS, settings=settings, output=output, **small)
    inputs = Inputs(format=InputFormat.HDF5, dataset=RAW, grows=True, container="event")
    downstream = replace(chain_task("halve", **small), events=None, inputs=inputs)
    with services.client() as client:
        writer = client.submit(upstream).task_id
        reader = client.submit(downstream).task_id
        wait_until(
            lambda: client.task(reader).progress.done > 0, "the first events of the reader", seconds=60
        )
        assert client.task(writer).state is TaskState.RUNNING
        assert client.task(reader).state is TaskState.RUNNING
        assert any(f"It waits for dataset {RAW}" in reason for reason in client.explain(reader).reasons)
        gate.touch()
        assert wait_for_task(client, writer, seconds=60).state is TaskState.DONE
        end = wait_for_task(client, reader, seconds=60)
        assert (end.state, end.progress.total, end.progress.done) == (TaskState.DONE, EVENTS, EVENTS)
        check_files(client, writer)
        (half,) = client.outputs(reader).files
        assert half.digest == serial_digest(as_files(client, downstream), tmp_path / "serial")
        with h5py.File(half.path) as file:
            assert np.array_equal(np.sort(file["origin"]), np.arange(EVENTS))


def as_files(client: DispatcherClient, spec: TaskSpec) -> TaskSpec:
    """A task that reads a dataset, as one that reads its files."""
    assert spec.inputs is not None
    assert spec.inputs.dataset is not None
    assert not client.dataset(spec.inputs.dataset).open
    files = tuple(
        InputFile(path=placed.file.replicas[0].path, events=placed.file.events)
        for placed in client.dataset_files(spec.inputs.dataset).files
    )
    return replace(spec, inputs=replace(spec.inputs, dataset=None, grows=False, files=files))


LIST = """
import json, os, h5py
with open(os.environ["HPCPANDA_SLICE"]) as file:
    mine = json.load(file)
with open("events.txt", "w") as out:
    for part in mine["files"]:
        with h5py.File(part["name"]) as file:
            out.writelines(f"{n}\\n" for n in file["event"][part["first"] : part["last"]])
"""
"""What a job does: it lists the events of its files, in their order."""


def test_jobs_read_what_another_still_writes(services: Services, tmp_path: Path) -> None:
    """Some are done while the other cannot make its last events; at the end every event is in the output of one job."""
    gate = tmp_path / "gate"
    small = {"module": "reading_payload", "max_range": 5, "resources": Resources(event_seconds=0.05)}
    settings = {"gate": str(gate), "gate_at": GATE}
    output = Output(file="raw.h5", max_events=MOST, dataset=RAW)
    upstream = chain_task("gated", events=EVENTS, settings=settings, output=output, **small)
    downstream = TaskSpec(
        name="list",
        payload=JobPayload(command=(sys.executable, "-c", LIST), outputs=("events.txt",)),
        job=JobRequest(memory_mb=300, walltime_s=30.0),
        split=JobSplit(files_per_job=2),
        inputs=Inputs(format=InputFormat.HDF5, dataset=RAW, grows=True, container="event"),
        output=Output(file="lists.zip", format=OutputFormat.ZIP),
    )
    with services.client() as client:
        writer, reader = client.submit(upstream).task_id, client.submit(downstream).task_id
        wait_until(lambda: client.task(reader).progress.done > 0, "the first job", seconds=60)
        assert client.task(writer).state is TaskState.RUNNING
        gate.touch()
        assert wait_for_task(client, writer, seconds=60).state is TaskState.DONE
        end = wait_for_task(client, reader, seconds=60)
        files = client.dataset(RAW).files
        assert (end.state, end.progress.total) == (TaskState.DONE, -(-files // 2))
        (lists,) = client.outputs(reader).files
    with zipfile.ZipFile(lists.path) as archive:
        told = [list(map(int, archive.read(name).split())) for name in archive.namelist()]
    assert len(told) == end.progress.total
    assert sorted(n for some in told for n in some) == list(range(EVENTS))


def test_a_chain_is_completed_link_by_link(services: Services, tmp_path: Path) -> None:
    """The first task has lost an event and is tried again; what it then writes the second reads when it is tried again,
    too: both have every event once, and what was there stays as it is."""
    small = {"max_range": 5, "resources": Resources(event_seconds=0.05)}
    settings = {"bad": 42, "cure": str(tmp_path / "cure")}
    upstream = chain_task(
        "curable",
        events=EVENTS,
        settings=settings,
        max_failed=1,
        output=Output(file="raw.h5", dataset=RAW),
        **small,
    )
    inputs = Inputs(format=InputFormat.HDF5, dataset=RAW, grows=True, container="event")
    downstream = replace(chain_task("halve", module="reading_payload", **small), events=None, inputs=inputs)
    with services.client() as client:
        writer, reader = client.submit(upstream).task_id, client.submit(downstream).task_id
        assert wait_for_task(client, writer, seconds=60).state is TaskState.FINISHED
        assert wait_for_task(client, reader, seconds=60).progress.done == EVENTS - 1
        (first,) = client.outputs(reader).files
        (tmp_path / "cure").touch()
        client.retry(writer)
        assert client.dataset(RAW).open
        assert wait_for_task(client, writer, seconds=60).state is TaskState.DONE
        shown = client.dataset(RAW)
        assert (shown.open, shown.files, shown.events) == (False, 2, EVENTS)
        assert any(
            f"'hpcpanda task retry {reader}' reads them" in said for said in client.explain(reader).reasons
        )
        client.retry(reader)
        end = wait_for_task(client, reader, seconds=60)
        assert (end.state, end.progress.total, end.progress.done) == (TaskState.DONE, EVENTS, EVENTS)
        outputs = client.outputs(reader).files
    assert first in outputs
    origins = [int(n) for output in outputs for n in h5py.File(output.path)["origin"][:]]
    assert sorted(origins) == list(range(EVENTS))
