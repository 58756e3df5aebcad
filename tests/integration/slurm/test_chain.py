"""Dispatcher, edge and allocations on Slurm: a task from its submission to its merged file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import RangePolicy, TaskSpec
from hpcpanda.merge import digest_bytes, digest_columns
from tests.support import chaos_payload
from tests.support.services import wait_for_task, wait_until
from tests.support.slurm import SlurmCluster
from tests.support.slurm_payload import held
from tests.support.slurm_services import NAME, SlurmServices

pytestmark = pytest.mark.timeout(900)

EVENTS = 8000
SEED = 7
SUPPORT = str(Path(chaos_payload.__file__).parent)


class Serial:
    """What a serial run sees."""

    first, last, seed = 0, EVENTS, SEED
    settings: ClassVar[dict[str, float]] = {}


def spec_of(call: str, output: Output, **settings: str | float) -> TaskSpec:
    return TaskSpec(
        name="preempted",
        events=EVENTS,
        seed=SEED,
        payload=CallablePayload(call=call, python_path=(SUPPORT,), settings=settings),
        ranges=RangePolicy(target_seconds=0.2, max_events=100),
        output=output,
    )


@pytest.fixture
def services(slurm: SlurmCluster, tmp_path: Path) -> Iterator[SlurmServices]:
    """A dispatcher and an edge with allocations of two nodes; at the end no allocation is left."""
    made = SlurmServices(tmp_path, nodes=2, cores=1)
    try:
        yield made
    finally:
        made.stop()


def start(services: SlurmServices, slurm: SlurmCluster, spec: TaskSpec) -> tuple[int, int]:
    """Submit a task; gives its id and the batch job that works on it, with a part of it done."""
    services.start_dispatcher()
    services.start_edge(name=NAME)
    with services.client() as client:
        task_id = client.submit(spec).task_id
        wait_until(
            lambda: client.task(task_id).progress.done > EVENTS // 10,
            "the first events",
            seconds=90,
            on_wait=lambda: services.check_alive("edge"),
        )
    (job,) = slurm.queue()
    return task_id, job.job_id


def finished(services: SlurmServices, task_id: int) -> str:
    """Wait for the end of a task that has every event once; gives its output's digest."""
    with services.client() as client:
        task = wait_for_task(client, task_id, seconds=500)
        assert task.state is TaskState.DONE, task.message
        assert task.progress.done == EVENTS
        (output,) = client.outputs(task_id).files
    assert output.events == IntervalSet.span(0, EVENTS)
    return output.digest


def test_the_edge_plans_anew_after_a_preemption(slurm: SlurmCluster, services: SlurmServices) -> None:
    """An urgent job takes all nodes: the allocation drains, another one does the rest; the digest is that of a serial run."""
    spec = spec_of("chaos_payload:generate", Output(file="out.h5"), event_us=2500)
    task_id, job = start(services, slurm, spec)
    urgent = slurm.preempt(seconds=2)
    assert finished(services, task_id) == digest_columns(chaos_payload.generate(Serial()))  # type: ignore[arg-type]
    wait_until(lambda: not slurm.queue(), "the end of all jobs")
    (first,), (between,) = slurm.accounting(job), slurm.accounting(urgent)
    later = [row for row in slurm.accounting() if int(row["JobId"]) > urgent]
    assert later
    assert first["EndTime"] <= between["StartTime"] <= between["EndTime"] <= later[0]["StartTime"]


def test_the_allocation_goes_on_when_its_job_is_queued_again(
    slurm: SlurmCluster, services: SlurmServices, tmp_path: Path
) -> None:
    """A range outlasts the grace time, so Slurm kills the job and runs it again: its head does what is left of it.

    The edge sees it wait and begin again.
    """
    file = tmp_path / "hold"
    file.touch()
    services.requeue, services.grace_s = True, 60.0
    output = Output(file="out.bin", format=OutputFormat.CONCAT)
    spec = spec_of("slurm_payload:hold", output, file=str(file), at=EVENTS // 2)
    task_id, job = start(services, slurm, spec)
    wait_until(held(file).exists, "the range that cannot be hurried", seconds=60)
    urgent = slurm.preempt(seconds=2)
    wait_until(lambda: "allocation-queued-again" in services.log("edge"), "the requeue", seconds=90)
    slurm.wait_for(urgent, "COMPLETED", seconds=90)
    file.unlink()
    assert finished(services, task_id) == digest_bytes(np.arange(EVENTS, dtype="<u8").tobytes())
    wait_until(lambda: not slurm.queue(), "the end of all jobs")
    assert [row["JobState"] for row in slurm.accounting(job)] == ["PREEMPTED", "COMPLETED"]
    assert {int(row["JobId"]) for row in slurm.accounting() if int(row["JobId"]) >= job} == {job, urgent}
