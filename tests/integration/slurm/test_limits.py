"""The limits of the site file, shown from Slurm's own accounting of a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest

from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import RangePolicy, TaskSpec
from tests.support import chaos_payload
from tests.support.services import wait_for_task, wait_until
from tests.support.slurm import SlurmCluster
from tests.support.slurm_services import NAME, SlurmServices

pytestmark = pytest.mark.timeout(900)

ALLOCATIONS, NODES = 3, 2
EVENTS = 6_000
Row = dict[str, str]


@pytest.fixture
def services(slurm: SlurmCluster, tmp_path: Path) -> Iterator[SlurmServices]:
    """An edge that knows four nodes and may use two, in allocations too short for the work."""
    made = SlurmServices(tmp_path, nodes=4, cores=1, allocations=ALLOCATIONS, walltime_s=15.0)
    try:
        yield made
    finally:
        made.stop()


def events() -> TaskSpec:
    """A dozen seconds for two cores, where an allocation has less than ten."""
    return TaskSpec(
        name="events",
        events=EVENTS,
        payload=CallablePayload(
            call="chaos_payload:generate",
            python_path=(str(Path(chaos_payload.__file__).parent),),
            settings={"event_us": 4000},
        ),
        ranges=RangePolicy(target_seconds=0.2, max_events=100),
        output=Output(file="out.h5"),
    )


def one_job() -> TaskSpec:
    """Something for a single core."""
    return TaskSpec(
        name="job",
        jobs=1,
        payload=JobPayload(command=("sh", "-c", "sleep 1; echo done > out"), outputs=("out",)),
        job=JobRequest(memory_mb=100, walltime_s=4.0),
        output=Output(file="jobs.zip", format=OutputFormat.ZIP),
    )


def jobs(slurm: SlurmCluster, before: int) -> set[str]:
    """Ids of all jobs since there were so many rows in the accounting, ended or not."""
    queued = {str(job.job_id) for job in slurm.queue()}
    return queued | {row["JobId"] for row in slurm.accounting()[before:]}


def most(rows: list[Row], begin: str, *, nodes: bool) -> int:
    """The largest number of jobs, or of their nodes, between that time and their end."""
    changes = []
    for row in rows:
        count = int(row["NodeCnt"]) if nodes else 1
        changes += [(row[begin], count), (row["EndTime"], -count)]
    changes.sort()  # times are of whole seconds: what ends in one makes place for what begins in it
    return max(accumulate(change for _, change in changes))


def test_limits_are_kept_by_slurms_own_account(slurm: SlurmCluster, services: SlurmServices) -> None:
    """Three allocations and two nodes at a time, however much there is to do and although the edge is killed between."""
    services.tables = {"limits": {"nodes": NODES}, "queue": {"min_nodes": 1, "max_nodes": 2}}
    before = len(slurm.accounting())
    services.start_dispatcher()
    services.start_edge(name=NAME)
    with services.client() as client:
        tasks = [client.submit(one_job()).task_id]
        wait_until(lambda: bool(slurm.queue()), "the first allocation", seconds=60)
        tasks += [client.submit(one_job()).task_id, client.submit(events()).task_id]
        wait_until(lambda: len(jobs(slurm, before)) > 1, "the second one", seconds=60)
        services.kill("edge")
        seen = jobs(slurm, before)
        services.tables["queue"]["min_nodes"] = 2
        services.start_edge(name=NAME)
        ends = [wait_for_task(client, task_id, seconds=500) for task_id in tasks]
        assert [t.state for t in ends] == [TaskState.DONE] * len(tasks), [t.message for t in ends]
    wait_until(lambda: not slurm.queue(), "the end of all jobs")
    rows = slurm.accounting()[before:]
    assert len(rows) > len(seen)
    assert {int(row["NodeCnt"]) for row in rows if row["JobId"] not in seen} == {2}
    assert most(rows, "SubmitTime", nodes=False) <= ALLOCATIONS
    assert most(rows, "StartTime", nodes=True) == NODES


def test_the_measure_itself() -> None:
    """A run that breaks the limits is found out."""
    rows = [
        {"SubmitTime": f"2026-01-01T00:00:0{a}", "EndTime": f"2026-01-01T00:00:0{b}", "NodeCnt": str(n)}
        for a, b, n in ((0, 3, 1), (1, 2, 2), (3, 5, 1), (2, 4, 1))
    ]
    assert most(rows, "SubmitTime", nodes=False) == 2
    assert most(rows, "SubmitTime", nodes=True) == 3
