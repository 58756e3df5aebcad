"""Slurm tells the ranks of a preempted allocation, not its head: what becomes of ranges and jobs."""

from __future__ import annotations

from pathlib import Path

from hpcpanda.allocation.plan import TaskWork, WorkPack
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.task import LossPolicy, TaskSpec
from hpcpanda.events.journal import read_journal
from tests.support.allocation import event_spec, leased
from tests.support.slurm import SlurmCluster
from tests.support.slurm_services import SlurmRig

CAREFUL = (
    "trap 'date +%s.%N > {told}' TERM; until [ -e {told} ]; do sleep 0.1; done; sleep 0.3; echo saved > out"
)
"""A job that notes when it is signalled, and saves what it has."""


def job_spec(script: str) -> TaskSpec:
    """A task of jobs of which none may fail."""
    return TaskSpec(
        name="jobs",
        jobs=2,
        payload=JobPayload(command=("bash", "-c", script, "bash", "{job}"), outputs=("out",)),
        job=JobRequest(memory_mb=100, walltime_s=200.0),
        output=Output(file="jobs.zip", format=OutputFormat.ZIP),
        loss=LossPolicy(attempts=1),
    )


def test_a_preempted_pack_ends_in_its_grace_time(slurm: SlurmCluster, tmp_path: Path) -> None:
    """No range begins after the signal and every finished one is journalled; a job finishes if it can, or stays undone."""
    a = SlurmRig(tmp_path, nodes=2, cores=2, cluster=slurm, walltime_s=300.0)
    told = tmp_path / "told"
    script = (
        f"touch {tmp_path}/begun-$1; case $1 in 0) {CAREFUL.format(told=told)};; *) exec sleep 600;; esac"
    )
    spec = event_spec(settings={"event_ms": 10}, max_events=5)
    events = TaskWork(task_id=1, spec=spec, events=leased((1, 0, 10**6)))
    jobs = TaskWork(task_id=2, spec=job_spec(script), events=leased((1, 0, 2)))
    a.start(WorkPack(pack_id="p", nodes=2, work=(events, jobs)))
    a.until(lambda: all((tmp_path / f"begun-{n}").exists() for n in range(2)), "the jobs", seconds=60)
    a.until(lambda: a.task(task_id=1).done > 0, "the first events", seconds=60)
    urgent = slurm.preempt(seconds=1)
    slurm.wait_for(urgent, "COMPLETED", seconds=60)
    signalled = float(told.read_text())
    parts = [read_journal(path) for path in a.journals()]
    assert all(part.closed for part in parts)
    begins = [float(start) for part in parts for start in part.entries["start"]]
    assert max(begins) < signalled + 0.5  # of a grace time of two seconds
    assert len(a.done()[1]) == a.task(task_id=1).done
    assert a.status().state == "ended"
    assert slurm.job(a.job_id)["JobState"] == "COMPLETED"
    assert a.done(2, content=False) == {1: IntervalSet.span(0, 1)}
    assert a.failed(2) == []
