"""The batch system adapter over PSI/J's Slurm executor, with stand-ins for Slurm's commands."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hpcpanda_edge.batch_system.choose import make_scheduler
from hpcpanda_edge.ports import AllocationJob, JobState, SchedulerPort, Submitted

from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import SchedulerSettings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SETTINGS = SchedulerSettings(
    executor="slurm", poll_seconds=1.0, queue="backfill", account="m1", options={"slurm.qos": "low"}
)
SBATCH = """#!/bin/bash
[ -e refuse ] && { echo "sbatch: error: invalid partition"; exit 1; }
cp "$1" script
echo "Submitted batch job 41"
echo "41 PD None" > queue
"""
SQUEUE = """#!/bin/bash
[ -e silent ] && { echo "slurm_load_jobs error: Unable to contact slurm controller"; exit 1; }
for word in "$@"; do [ "$word" == "--noheader" ] && { cut -d' ' -f1 queue; exit 0; }; done
echo "JOBID ST REASON"
cat queue
"""
SCANCEL = """#!/bin/bash
echo "$@" > cancelled
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the queue, in which the stand-ins work."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    (folder / "queue").touch()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        program = folder / name
        program.write_text(text.replace("#!/bin/bash\n", f"#!/bin/bash\ncd {folder}\n"))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def scheduler(tmp_path: Path, slurm: Path) -> SchedulerPort:
    return make_scheduler(SETTINGS, tmp_path / "psij")


def submit(scheduler: SchedulerPort, tmp_path: Path) -> Submitted:
    folder = tmp_path / "a1"
    folder.mkdir()
    native_id = scheduler.submit(
        AllocationJob(
            allocation_id="a1", nodes=3, walltime_s=5400, command=("/bin/echo", str(folder)), folder=folder
        )
    )
    return Submitted(allocation_id="a1", native_id=native_id, folder=folder)


def state_after(scheduler: SchedulerPort, submitted: Submitted, wanted: JobState) -> None:
    deadline = time.monotonic() + 20
    while scheduler.states([submitted]).get("a1") is not wanted:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_job_asks_for_whole_nodes_under_the_name_of_the_allocation(
    scheduler: SchedulerPort, tmp_path: Path, slurm: Path
):
    """Nodes, wall time, exclusive use, and what the site file says about queue, account and options."""
    assert submit(scheduler, tmp_path).native_id == "41"
    script = (slurm / "script").read_text()
    for line in ("--nodes=3", "--exclusive", "--time=1:30:0"):
        assert f"#SBATCH {line}" in script
    for line in ('--job-name="a1"', '--partition="backfill"', '--account="m1"', '--qos="low"'):
        assert f"#SBATCH {line}" in script


def test_states_follow_the_queue_and_the_end_is_asked_for_again(
    scheduler: SchedulerPort, tmp_path: Path, slurm: Path
):
    """Queued, running, gone; a batch system that does not answer does not make an allocation gone."""
    job = submit(scheduler, tmp_path)
    state_after(scheduler, job, JobState.QUEUED)
    (slurm / "queue").write_text("41 R None\n")
    state_after(scheduler, job, JobState.RUNNING)
    (slurm / "queue").write_text("")
    (slurm / "silent").touch()
    time.sleep(2.5)
    with contextlib.suppress(SchedulerFailed):  # it may say that it does not know
        assert JobState.GONE not in scheduler.states([job]).values()
    (slurm / "silent").unlink()
    state_after(scheduler, job, JobState.GONE)


def test_a_new_adapter_sees_the_jobs_of_the_one_before(scheduler: SchedulerPort, tmp_path: Path, slurm: Path):
    """After a restart jobs are followed by their id, and found by their name."""
    job = submit(scheduler, tmp_path)
    (slurm / "queue").write_text("41 R None\n")
    again = make_scheduler(SETTINGS, tmp_path / "psij")
    assert again.find("a1", job.folder) == "41"
    state_after(again, job, JobState.RUNNING)
    again.cancel(job)
    assert (slurm / "cancelled").read_text().split()[-1] == "41"


def test_a_refused_submission_says_why(scheduler: SchedulerPort, tmp_path: Path, slurm: Path):
    """The batch system's own words are in the error."""
    (slurm / "refuse").touch()
    with pytest.raises(SchedulerFailed, match="invalid partition"):
        submit(scheduler, tmp_path)


def test_psij_does_not_look_for_children_that_it_has_not(tmp_path: Path) -> None:
    """With a batch system the end of a program that the edge ran does not start the loop of PSI/J's local executor, which
    would then go on ten times a second."""
    program = (
        "import subprocess, sys, threading, pathlib\n"
        "from hpcpanda.domain.site import SchedulerSettings\n"
        "from hpcpanda_edge.batch_system.choose import make_scheduler\n"
        "make_scheduler(SchedulerSettings(executor='slurm'), pathlib.Path(sys.argv[1]))\n"
        "subprocess.run(['true'], check=True)\n"
        "print(*(thread.name for thread in threading.enumerate()), sep='|')\n"
    )
    words = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path)]
    names = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "Main" in names
    assert "Reaper" not in names
