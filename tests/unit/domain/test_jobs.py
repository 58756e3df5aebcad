"""What a task of jobs may say, and whether its jobs fit a machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import MAX_WITHOUT, Capacity
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload, CommandPayload
from hpcpanda.domain.room import Room
from hpcpanda.domain.task import TaskSpec

ZIP = Output(file="out.zip", format=OutputFormat.ZIP)
JOBS: dict[str, Any] = {"name": "t", "payload": JobPayload(command=("true",)), "output": ZIP, "jobs": 3}
EVENTS: dict[str, Any] = {
    "name": "t",
    "payload": CommandPayload(command=("a", "{output}")),
    "output": ZIP,
    "events": 3,
}
ROOM = Room(cores=8, memory_mb=16_000, gpus=2, nodes=4, seconds=600.0, containers=True)

rooms = st.builds(
    Room,
    cores=st.integers(1, 64),
    memory_mb=st.integers(1, 10**6),
    gpus=st.integers(0, 8),
    nodes=st.integers(1, 100),
    seconds=st.floats(0, 1e6),
    containers=st.booleans(),
)
requests = st.builds(
    JobRequest,
    cores=st.integers(1, 64),
    memory_mb=st.integers(16, 10**6),
    gpus=st.integers(0, 8),
    nodes=st.integers(1, 100),
    walltime_s=st.floats(0.1, 1e6),
)


def test_a_task_of_jobs_counts_its_jobs() -> None:
    """Their number is the size of the event space; what they ask for has defaults."""
    spec = TaskSpec(**JOBS)
    assert (spec.event_count, spec.unit, spec.job_request) == (3, "job", JobRequest())
    events = TaskSpec(**EVENTS)
    assert (events.event_count, events.unit, events.job_request) == (3, "event", None)


@pytest.mark.parametrize(
    ("base", "change", "says"),
    [
        (JOBS, {"jobs": 0}, "jobs: 0 is outside"),
        (JOBS, {"events": 3}, "events: say one of"),
        (JOBS, {"jobs": None, "events": 3}, "jobs: goes with a payload"),
        (EVENTS, {"jobs": 3, "events": None}, "jobs: goes with a payload"),
        (EVENTS, {"job": JobRequest()}, "job: is for payloads"),
        (JOBS, {"output": Output(file="o", format=OutputFormat.CONCAT)}, "output.format: .*zip"),
        (JOBS, {"container": "-v"}, "container: '-v'"),
        (JOBS, {"container": ""}, "container: ''"),
        (
            EVENTS,
            {"payload": CallablePayload(call="a:b"), "container": "image"},
            "container: is for commands",
        ),
    ],
)
def test_contradictions_are_refused(base: dict[str, Any], change: dict[str, Any], says: str) -> None:
    """Fields of jobs go with jobs, and with nothing else; the message names the field."""
    with pytest.raises(InvalidValue, match=f"^{says}"):
        TaskSpec(**(base | change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"command": ()}, "payload.command"),
        ({"command": ("a\0b",)}, "payload.command"),
        ({"environment": {"A": "\0"}}, "payload.command"),
        ({"environment": {"A=B": ""}}, "payload.environment"),
        ({"environment": {"": ""}}, "payload.environment"),
        ({"inputs": ("relative",)}, "payload.inputs"),
        ({"inputs": ("/folder/",)}, "payload.inputs"),
        ({"inputs": ("/folder/..",)}, "payload.inputs"),
        ({"inputs": ("/a/x", "/b/x")}, "payload.inputs"),
        ({"inputs": ("/a/x",), "outputs": ("x",)}, "payload.inputs"),
        ({"inputs": ("/a/stdout.txt",)}, "payload.inputs"),
        ({"outputs": ("/abs",)}, "payload.outputs"),
        ({"outputs": ("../up",)}, "payload.outputs"),
        ({"outputs": ("a//b",)}, "payload.outputs"),
        ({"outputs": ("",)}, "payload.outputs"),
        ({"outputs": ("a", "a")}, "payload.outputs"),
    ],
)
def test_files_and_words_of_a_job_are_judged(change: dict[str, Any], says: str) -> None:
    """Nothing leaves the work folder, nothing is there twice, nothing is handed on that no program can take."""
    with pytest.raises(InvalidValue, match=f"^{says}: "):
        JobPayload(**({"command": ("true",)} | change))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cores": 0}, "cores"),
        ({"memory_mb": 1}, "memory_mb"),
        ({"gpus": -1}, "gpus"),
        ({"nodes": 0}, "nodes"),
        ({"walltime_s": float("nan")}, "walltime_s"),
        ({"disk_mb": -1}, "disk_mb"),
        ({"clones": 17}, "clones"),
        ({"ranks_per_node": 2}, "ranks_per_node"),
        ({"nodes": 2, "clones": 2}, "clones"),
    ],
)
def test_what_a_job_asks_for_is_judged(change: dict[str, Any], field: str) -> None:
    """Numbers out of range, and ranks or clones where they make no sense, are refused by name."""
    with pytest.raises(InvalidValue, match=f"^job.{field}: "):
        JobRequest(**change)


def test_core_seconds_are_those_of_whole_nodes_for_several() -> None:
    """A job on several nodes has all their cores, whatever it says of cores."""
    assert JobRequest(cores=3, walltime_s=10).core_seconds(64) == 30
    assert JobRequest(nodes=2, walltime_s=10).core_seconds(64) == 1280


@pytest.mark.parametrize(
    ("job", "says"),
    [
        ({}, None),
        ({"cores": 8, "memory_mb": 16_000, "gpus": 2, "walltime_s": 600.0}, None),
        ({"cores": 9}, "asks for 9 cores, where there are 8"),
        ({"memory_mb": 16_001}, "asks for 16001 MiB of memory, where there are 16000"),
        ({"gpus": 3}, "asks for 3 GPUs, where there are 2"),
        ({"nodes": 5}, "asks for 5 nodes, where there are 4"),
        ({"nodes": 4, "cores": 64}, None),
        ({"walltime_s": 601}, "asks for 601 seconds, where there are 600"),
    ],
)
def test_a_refusal_says_what_does_not_fit(job: dict[str, Any], says: str | None) -> None:
    """The first thing there is too little of, with both numbers."""
    assert ROOM.refusal(JobRequest(**{"walltime_s": 60.0, **job})) == says


def test_a_container_needs_a_room_with_containers() -> None:
    """Where none can be run, a job in one does not fit."""
    job = JobRequest(walltime_s=1)
    assert ROOM.refusal(job, container=True) is None
    without = dataclasses.replace(ROOM, containers=False)
    assert without.refusal(job) is None
    assert without.refusal(job, container=True) == "asks for a container, where none can be run"


@given(rooms, rooms, requests, st.booleans())
def test_a_covering_room_takes_what_either_takes(a: Room, b: Room, job: JobRequest, container: bool) -> None:
    """And it is the same whichever comes first, and itself when nothing is added."""
    both = a.covering(b)
    assert both == b.covering(a)
    assert both.covering(a) == both
    assert a.covering(None) == a
    if a.refusal(job, container=container) is None or b.refusal(job, container=container) is None:
        assert both.refusal(job, container=container) is None


def test_a_capacity_leaves_out_a_bounded_number_of_tasks() -> None:
    """So many and not one more."""
    edge: dict[str, Any] = {"instance": "e", "cores": 1, "seconds": 1.0}
    assert len(Capacity(**edge, without=tuple(range(MAX_WITHOUT))).without) == MAX_WITHOUT
    with pytest.raises(InvalidValue, match=r"^without: more than 1000"):
        Capacity(**edge, without=tuple(range(MAX_WITHOUT + 1)))
