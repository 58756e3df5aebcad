"""The batch system adapter over PSI/J's own local executor."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hpcpanda_edge.batch_system.choose import make_scheduler
from hpcpanda_edge.ports import AllocationJob, JobState, SchedulerPort, Submitted

from hpcpanda.domain.errors import InvalidValue, SchedulerFailed
from hpcpanda.domain.site import SchedulerSettings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def scheduler(tmp_path: Path) -> SchedulerPort:
    return make_scheduler(SchedulerSettings(executor="local", poll_seconds=0.1), tmp_path / "psij")


def job(folder: Path, seconds: float) -> AllocationJob:
    """An allocation that sleeps."""
    folder.mkdir(exist_ok=True)
    program = "import sys, time; print('in', sys.argv[1], flush=True); time.sleep(float(sys.argv[2]))"
    return AllocationJob(
        allocation_id=folder.name,
        nodes=1,
        walltime_s=60,
        command=(sys.executable, "-c", program, str(folder), str(seconds)),
        folder=folder,
    )


def state_after(scheduler: SchedulerPort, submitted: Submitted, wanted: JobState) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + 20
    while scheduler.states([submitted])[submitted.allocation_id] is not wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_allocation_runs_prints_into_its_folder_and_is_gone(scheduler: SchedulerPort, tmp_path: Path):
    """A submitted command runs, its output is in the folder, and its end is seen."""
    folder = tmp_path / "a1"
    native_id = scheduler.submit(job(folder, 0.5))
    submitted = Submitted(allocation_id="a1", native_id=native_id, folder=folder)
    assert scheduler.states([submitted]) == {"a1": JobState.RUNNING}
    state_after(scheduler, submitted, JobState.GONE)
    assert (folder / "head.log").read_text() == f"in {folder}\n"


def test_cancel_ends_all_processes_of_an_allocation(scheduler: SchedulerPort, tmp_path: Path):
    """After a cancel nothing with the allocation's folder among its arguments is left."""
    folder = tmp_path / "a2"
    native_id = scheduler.submit(job(folder, 60))
    submitted = Submitted(allocation_id="a2", native_id=native_id, folder=folder)
    scheduler.cancel(submitted)
    state_after(scheduler, submitted, JobState.GONE)
    assert scheduler.find("a2", folder) is None


def test_another_process_with_the_same_id_is_not_taken_for_the_allocation(
    scheduler: SchedulerPort, tmp_path: Path
):
    """A process id used again does not deceive: the allocation is gone."""
    submitted = Submitted(allocation_id="a3", native_id="1", folder=tmp_path / "a3")
    assert scheduler.states([submitted]) == {"a3": JobState.GONE}


def test_an_allocation_outlives_its_submitter_and_is_found_again(scheduler: SchedulerPort, tmp_path: Path):
    """The submitting process is killed; the allocation goes on, and a new adapter sees it run and end."""
    folder = tmp_path / "a4"
    submitter = f"""
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_psij import job, make_scheduler, SchedulerSettings
scheduler = make_scheduler(SchedulerSettings(), Path({str(tmp_path)!r}) / "other")
scheduler.submit(job(Path({str(folder)!r}), 2.0))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", submitter], check=False).returncode == -9
    native_id = scheduler.find("a4", folder)
    assert native_id is not None
    submitted = Submitted(allocation_id="a4", native_id=native_id, folder=folder)
    assert scheduler.states([submitted]) == {"a4": JobState.RUNNING}
    state_after(scheduler, submitted, JobState.GONE)


def test_an_unknown_executor_is_refused_by_name(tmp_path: Path):
    """The error names the field and the executors there are."""
    with pytest.raises(
        InvalidValue, match=r"scheduler.executor: PSI/J has no executor 'slurmy', only .*local"
    ):
        make_scheduler(SchedulerSettings(executor="slurmy"), tmp_path)


def test_a_submission_that_fails_says_so(scheduler: SchedulerPort, tmp_path: Path):
    """A folder that is not there makes the submission fail, with the allocation's name in the error."""
    missing = AllocationJob(
        allocation_id="a5", nodes=1, walltime_s=60, command=("/bin/true",), folder=tmp_path / "missing"
    )
    with pytest.raises(SchedulerFailed, match="a5"):
        scheduler.submit(missing)
