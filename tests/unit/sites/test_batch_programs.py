"""What PSI/J's executors for Slurm, PBS and LSF do with the programs of a batch system.

The programs are stand-ins on PATH: a few lines of bash that keep the script they are given and answer in the words
of the real ones. They show what is submitted and how answers are read, not that a real machine takes it.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hpcpanda_edge.batch_system.choose import make_scheduler
from hpcpanda_edge.ports import AllocationJob, JobState, SchedulerPort, Submitted

from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import SchedulerSettings

from .conftest import Programs

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

REFUSE = '[ -e refuse ] && { echo "no such account"; exit 1; }\ncp "$1" script\n'
SLURM = {
    "sbatch": REFUSE + "echo Submitted batch job 41",
    "squeue": """
echo "JOBID ST REASON"
case $(cat state) in queued) echo "41 PD None";; running) echo "41 R None";; esac""",
    "scancel": 'echo "$@" > cancelled',
}
PBS = {
    "qsub": REFUSE + "echo 41.server",
    "qstat": """
case $(cat state) in queued) s=Q;; running) s=R;; *) s=F;; esac
echo "{\\"Jobs\\": {\\"41.server\\": {\\"job_state\\": \\"$s\\", \\"Exit_status\\": 271}}}" """,
    "qdel": 'echo "$@" > cancelled',
}
LSF = {
    "bsub": REFUSE + 'echo "Job <41> is submitted to queue <short>."',
    "bjobs": """
case $(cat state) in queued) s=PEND;; running) s=RUN;; *) s=EXIT r=TERM_PREEMPT;; esac
echo "{\\"JOBS\\": 1, \\"RECORDS\\": [{\\"JOBID\\": \\"41\\", \\"STAT\\": \\"$s\\", \\"EXIT_REASON\\": \\"$r\\",
  \\"KILL_REASON\\": \\"\\", \\"SUSPEND_REASON\\": \\"\\"}]}" """,
    "bkill": 'echo "$@" > cancelled',
}
SYSTEMS = {
    "slurm": (SLURM, "41", {'#SBATCH --job-name="a1"', '#SBATCH --partition="short"', "#SBATCH --exclusive"}),
    "pbs": (PBS, "41.server", {'#PBS -N "a1"', "#PBS -q short", "#PBS -l place=scatter:exclhost"}),
    "lsf": (LSF, "41", {'#BSUB -J "a1"', '#BSUB -q "short"', "#BSUB -x"}),
}  # fmt: skip


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(system: str, programs: Programs) -> Path:
    """Where the stand-ins work: the state of the one job, and what they were given."""
    folder = programs(**SYSTEMS[system][0])
    (folder / "state").write_text("queued")
    return folder


@pytest.fixture
def scheduler(system: str, folder: Path, tmp_path: Path) -> SchedulerPort:
    settings = SchedulerSettings(
        executor=system, poll_seconds=1, queue="short", account="m1", setup=("export A=1", "module load b")
    )
    return make_scheduler(settings, tmp_path / "psij")


def submit(scheduler: SchedulerPort, tmp_path: Path) -> Submitted:
    folder = tmp_path / "a1"
    folder.mkdir()
    words = ("/bin/echo", str(folder))
    job = AllocationJob(allocation_id="a1", nodes=3, walltime_s=5400, command=words, folder=folder)
    return Submitted(allocation_id="a1", native_id=scheduler.submit(job), folder=folder)


def wait_for(scheduler: SchedulerPort, submitted: Submitted, wanted: JobState) -> None:
    deadline = time.monotonic() + 20
    while scheduler.states([submitted]).get("a1") is not wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_script_that_is_submitted_is_the_one_that_is_shown(
    system: str, scheduler: SchedulerPort, folder: Path, tmp_path: Path
):
    """Name, queue and whole nodes reach the batch system, the set-up lines wait beside the plan."""
    _, native_id, expected = SYSTEMS[system]
    submitted = submit(scheduler, tmp_path)
    assert submitted.native_id == native_id
    script = (folder / "script").read_text()
    assert expected <= set(script.splitlines())
    assert "export PSIJ_NODEFILE" in script
    assert (submitted.folder / "setup.sh").read_text().endswith("\nexport A=1\nmodule load b\n")


def test_states_are_read_as_the_batch_system_tells_them(
    scheduler: SchedulerPort, folder: Path, tmp_path: Path
):
    """Waiting, running, and gone: also when the job was ended by others and the answer says why."""
    submitted = submit(scheduler, tmp_path)
    assert scheduler.states([submitted]) == {"a1": JobState.QUEUED}
    (folder / "state").write_text("running")
    wait_for(scheduler, submitted, JobState.RUNNING)
    (folder / "state").write_text("ended")
    wait_for(scheduler, submitted, JobState.GONE)


def test_a_refusal_is_told_in_the_batch_systems_words(scheduler: SchedulerPort, folder: Path, tmp_path: Path):
    """Nothing is taken for submitted."""
    (folder / "refuse").touch()
    with pytest.raises(SchedulerFailed, match="no such account"):
        submit(scheduler, tmp_path)


def test_an_allocation_is_cancelled_by_its_id(
    system: str, scheduler: SchedulerPort, folder: Path, tmp_path: Path
):
    """The program for it is called with the batch system's own name of the job."""
    scheduler.cancel(submit(scheduler, tmp_path))
    assert (folder / "cancelled").read_text().split()[-1] == SYSTEMS[system][1]


def run_here(tmp_path: Path, *setup: str) -> Path:
    """Run an allocation that writes down what ``$GREETING`` is, behind set-up lines, with PSI/J's own launcher."""
    folder = tmp_path / "a1"
    folder.mkdir()
    command = ("/bin/bash", "-c", 'echo "$GREETING" > "$0/told"', str(folder))
    job = AllocationJob(allocation_id="a1", nodes=1, walltime_s=60, command=command, folder=folder)
    scheduler = make_scheduler(SchedulerSettings(poll_seconds=0.1, setup=setup), tmp_path / "psij")
    submitted = Submitted(allocation_id="a1", native_id=scheduler.submit(job), folder=folder)
    wait_for(scheduler, submitted, JobState.GONE)
    return folder / "told"


def test_the_head_sees_what_the_setup_lines_set(tmp_path: Path):
    """They run in the shell that starts the head."""
    told = run_here(tmp_path, "greeting=hello", "export GREETING=$greeting")
    deadline = time.monotonic() + 10
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert told.read_text() == "hello\n"


def test_no_head_starts_behind_a_setup_line_that_fails(tmp_path: Path):
    """The allocation ends instead of running in half an environment, and leaves bash's words."""
    told = run_here(tmp_path, "no-such-command", "export GREETING=hello")
    time.sleep(0.3)
    assert not told.exists()
    assert "no-such-command: command not found" in (told.parent / "setup.err").read_text()
