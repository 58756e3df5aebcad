"""The batch system adapter over PSI/J's Slurm executor, on a real Slurm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hpcpanda_edge.batch_system.choose import make_scheduler
from hpcpanda_edge.ports import AllocationJob, JobState, SchedulerPort, Submitted

from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import SchedulerSettings
from tests.support.services import wait_until
from tests.support.slurm import SlurmCluster

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Make = Callable[..., SchedulerPort]


@pytest.fixture
def adapter(slurm: SlurmCluster, tmp_path: Path) -> Make:
    """Makes an adapter over one state folder, as a starting edge does."""

    def make(queue: str | None = "backfill", **options: str) -> SchedulerPort:
        named = {f"slurm.{name.replace('_', '-')}": value for name, value in options.items()}
        settings = SchedulerSettings(
            executor="slurm", poll_seconds=1.0, queue=queue, account="m1", options=named
        )
        return make_scheduler(settings, tmp_path / "psij")

    return make


def submit(
    scheduler: SchedulerPort,
    tmp_path: Path,
    script: str = "exec sleep 100",
    *,
    name: str = "a1",
    nodes: int = 2,
) -> Submitted:
    folder = tmp_path / name
    folder.mkdir()
    command = ("/bin/bash", "-c", script, str(folder))
    job = AllocationJob(allocation_id=name, nodes=nodes, walltime_s=300, command=command, folder=folder)
    return Submitted(allocation_id=name, native_id=scheduler.submit(job), folder=folder)


def until(scheduler: SchedulerPort, job: Submitted, state: JobState, *, seconds: float = 60.0) -> None:
    wait_until(
        lambda: scheduler.states([job]).get(job.allocation_id) is state,
        f"{job.allocation_id} {state}",
        seconds=seconds,
    )


def test_an_allocation_is_whole_nodes_under_its_name(
    adapter: Make, tmp_path: Path, slurm: SlurmCluster
) -> None:
    """Name, nodes, exclusive use, partition, account, wall time and further options reach Slurm as meant."""
    scheduler = adapter(no_requeue="", comment='it\'s "a" & b')
    job = submit(scheduler, tmp_path)
    until(scheduler, job, JobState.RUNNING)
    facts = slurm.job(int(job.native_id))
    wanted = {
        "JobName": "a1", "NumNodes": "2", "NumCPUs": "4", "OverSubscribe": "NO", "Partition": "backfill",
        "Account": "m1", "TimeLimit": "00:05:00", "Requeue": "0", "WorkDir": str(job.folder),
    }  # fmt: skip
    assert {name: facts[name] for name in wanted} == wanted
    assert slurm.run("squeue", "--noheader", "--format=%k").stdout.strip() == 'it\'s "a" & b'
    assert [slurm.node_states()[n] for n in ("n1", "n2")] == ["allocated", "allocated"]


def test_output_is_in_the_folder_of_the_allocation(
    adapter: Make, tmp_path: Path, slurm: SlurmCluster
) -> None:
    """What the head prints is kept beside its plan, and the end of the job is seen."""
    scheduler = adapter()
    job = submit(scheduler, tmp_path, "pwd; echo wrong >&2")
    until(scheduler, job, JobState.GONE)
    assert (job.folder / "head.log").read_text().strip() == str(job.folder)
    assert (job.folder / "head.err").read_text() == "wrong\n"


def test_a_waiting_and_a_running_job_are_cancelled(
    adapter: Make, tmp_path: Path, slurm: SlurmCluster
) -> None:
    """Cancelled jobs are gone, and cancelling one that is gone is no error."""
    scheduler = adapter()
    running = submit(scheduler, tmp_path, nodes=4)
    waiting = submit(scheduler, tmp_path, name="a2", nodes=4)
    until(scheduler, running, JobState.RUNNING)
    until(scheduler, waiting, JobState.QUEUED)
    for job in (waiting, running):
        scheduler.cancel(job)
        until(scheduler, job, JobState.GONE)
        scheduler.cancel(job)
    assert [slurm.accounting(int(j.native_id))[-1]["JobState"] for j in (running, waiting)] == [
        "CANCELLED"
    ] * 2


def test_a_new_adapter_follows_and_finds_the_jobs_of_the_one_before(
    adapter: Make, tmp_path: Path, slurm: SlurmCluster
) -> None:
    """After a restart jobs are followed by their id, found by their name, and their end is seen."""
    job = submit(adapter(), tmp_path, "until [ -e done ]; do sleep 0.1; done")
    again = adapter()
    assert again.find("a1", job.folder) == job.native_id
    assert again.find("a0", job.folder) is None
    until(again, job, JobState.RUNNING)
    (job.folder / "done").touch()
    until(again, job, JobState.GONE)
    assert again.find("a1", job.folder) is None


def test_a_preempted_job_is_queued_and_runs_again(adapter: Make, tmp_path: Path, slurm: SlurmCluster) -> None:
    """Running, queued, running: a job that Slurm has queued again is not taken for running."""
    scheduler = adapter()
    job = submit(scheduler, tmp_path)
    until(scheduler, job, JobState.RUNNING)
    slurm.preempt(seconds=1)
    until(scheduler, job, JobState.QUEUED)
    until(scheduler, job, JobState.RUNNING)
    assert slurm.job(int(job.native_id))["Restarts"] == "1"


def test_a_job_that_may_not_be_queued_again_is_gone_when_preempted(
    adapter: Make, tmp_path: Path, slurm: SlurmCluster
) -> None:
    """An option without a value is passed on, and a preemption then ends the allocation."""
    scheduler = adapter(no_requeue="")
    job = submit(scheduler, tmp_path)
    until(scheduler, job, JobState.RUNNING)
    slurm.preempt(seconds=1)
    until(scheduler, job, JobState.GONE)
    assert slurm.accounting(int(job.native_id))[-1]["JobState"] == "PREEMPTED"


def test_states_are_told_whatever_reason_slurm_gives(
    adapter: Make, tmp_path: Path, slurm: SlurmCluster
) -> None:
    """A reason with blanks, as for a job that wants a node that is down, does not hide the state of any job."""
    scheduler = adapter(nodelist="n4")
    slurm.run("scontrol", "update", "NodeName=n4", "State=DOWN", "Reason=test")
    try:
        waiting = submit(scheduler, tmp_path, nodes=1)
        running = submit(adapter(), tmp_path, name="a2", nodes=1)
        wait_until(lambda: "," in slurm.job(int(waiting.native_id))["Reason"], "the reason")
        until(scheduler, running, JobState.RUNNING)
        until(scheduler, waiting, JobState.QUEUED)
    finally:
        slurm.run("scontrol", "update", "NodeName=n4", "State=RESUME")


def test_a_refused_submission_says_why(adapter: Make, tmp_path: Path, slurm: SlurmCluster) -> None:
    """Slurm's own words are in the error."""
    with pytest.raises(SchedulerFailed, match="invalid partition"):
        submit(adapter(queue="nowhere"), tmp_path)
