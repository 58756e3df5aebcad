"""The program of an MPI job's pack, with real MPI on this machine."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpcpanda.allocation.launch import DirectLauncher
from hpcpanda.allocation.plan import Drain, EndWork, Revoke, ToPack
from hpcpanda.domain.site import AllocationSettings, LauncherSettings, NodeSettings, Site
from hpcpanda.payload import pythia_seed
from tests.support.mpi_job_rig import MpiJobRig, StartedPack, mpi_pack, mpi_spec
from tests.support.processes import living
from tests.support.services import wait_until

Maker = Callable[..., MpiJobRig]
FOREVER = "import time; time.sleep(600)"


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Maker]:
    """Makes an allocation of pretended nodes with two cores each."""
    made: list[MpiJobRig] = []

    def make(**launcher: Any) -> MpiJobRig:
        site = Site(
            name="t",
            spool=str(tmp_path / "spool"),
            nodes=NodeSettings(count=2, cores=2, memory_mb=4000, oversubscribe=True),
            launcher=LauncherSettings(**launcher),
            allocation=AllocationSettings(grace_s=2.0, sync_s=0.05),
        )
        made.append(MpiJobRig(site, DirectLauncher(site.launcher)))
        return made[-1]

    yield make
    for one in made:
        one.close()
    wait_until(lambda: not processes(tmp_path), "the end of all processes")


def processes(folder: Path) -> list[psutil.Process]:
    """Every living process that works below a folder."""
    return living(lambda process: process if process.cwd().startswith(str(folder)) else None)


def test_a_job_is_recorded_with_its_files(rig: Maker, tmp_path: Path) -> None:
    """All ranks make one world; placeholders, inputs and variables are there; the journal counts core-seconds."""
    (tmp_path / "in-7.txt").write_text("seven")
    a = rig()
    spec = mpi_spec(
        "import pathlib\nif world.rank == 0: pathlib.Path('out', 'big').write_text("
        "open('in-7.txt').read() + os.environ['NUMBER'])",
        ranks_per_node=2,
        words=("{job}/{jobs}", "{seed}", "{cores}"),
        inputs=(str(tmp_path / "in-{job}.txt"),),
        outputs=("stdout.txt", "out/big"),
        environment={"NUMBER": "is {job}"},
    )
    pack = a.start(mpi_pack(spec))
    last = pack.until_exit()
    head, files = pack.output()
    printed = f"size 4 nodes here words 7/100 {pythia_seed(1, 7)} 4\n"
    assert files == {"stdout.txt": printed.encode(), "out/big": b"sevenis 7"}
    assert (head.report.job, head.report.attempt, head.report.exit_status, head.report.error) == (
        7,
        1,
        0,
        None,
    )
    (entry,) = pack.recorded.entries
    assert (entry["epoch"], entry["first"], entry["last"]) == (4, 7, 8)
    assert (entry["cores"], entry["wall_s"]) == (4, pytest.approx(head.report.wall_s))
    assert pack.recorded.closed
    assert pack.recorded.header is not None
    assert pack.recorded.header.cores == 4
    assert (last.state, last.idle, last.done, last.error) == ("ended", True, 1, None)
    assert last.tasks[0].event_seconds == pytest.approx(4 * head.report.wall_s)
    assert not a.work_left


def test_all_cores_are_reported_busy_while_it_runs(rig: Maker) -> None:
    """The job has its nodes whole."""
    a = rig()
    pack = a.start(mpi_pack(mpi_spec(FOREVER)))
    pack.until_busy()
    status = pack.heard[-1]
    assert (status.cores, status.cores_busy, status.occupancy, status.job_cores) == (4, 4, (1.0,) * 4, 4)
    assert not status.idle


def test_a_job_that_fails_is_tried_again_and_then_set_aside(rig: Maker, tmp_path: Path) -> None:
    """Exit status and the end of stderr are told, and the number of attempts."""
    tries = tmp_path / "tries"
    a = rig()
    tail = f"""
if world.rank == 0:
    open({str(tries)!r}, "a").write("x")
    print("bad luck", file=sys.stderr, flush=True)
world.Barrier()
os._exit(3)
"""
    pack = a.start(mpi_pack(mpi_spec(tail, attempts=3)))
    last = pack.until_exit()
    ((failed,),) = [group.events for group in pack.recorded.failed]
    assert (failed.event, failed.attempts, pack.recorded.failed[0].epoch) == (7, 3, 4)
    # 9 was seen under load: probably a rank that hydra killed before it saw it end
    assert re.search(r"exit status [39]\b", failed.error)
    assert "bad luck" in failed.error
    assert tries.read_text() == "xxx"
    assert (last.done, last.error, len(pack.recorded.entries)) == (0, None, 0)
    assert not a.work_left


def test_a_later_attempt_may_succeed(rig: Maker, tmp_path: Path) -> None:
    """The second attempt finds an empty work folder, and is the one that is recorded."""
    a = rig()
    first = f"""
if world.rank == 0 and not os.path.exists({str(tmp_path / "tried")!r}):
    open({str(tmp_path / "tried")!r}, "w").close()
    open("left", "w").close()
    world.Abort(5)
assert not os.path.exists("left")
"""
    pack = a.start(mpi_pack(mpi_spec(first, attempts=2)))
    pack.until_exit()
    assert pack.output()[0].report.attempt == 2
    assert pack.recorded.failed == ()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"tail": FOREVER, "walltime_s": 1.0}, "longer than job.walltime_s, 1 s"),
        ({"outputs": ("missing.dat",)}, "did not leave a file 'missing.dat'"),
        ({"inputs": ("/no/such/file",)}, "there is no file /no/such/file"),
        ({"tail": "os.kill(os.getpid(), 11)"}, "signal|status 139|exit status"),
    ],
)
def test_what_makes_a_job_fail(rig: Maker, settings: dict[str, Any], why: str) -> None:
    """Wall time, a missing output, a missing input and a crash are told in the user's words."""
    a = rig()
    pack = a.start(mpi_pack(mpi_spec(**settings)))
    assert pack.until_exit().error is None
    ((failed,),) = [group.events for group in pack.recorded.failed]
    assert any(part in failed.error for part in why.split("|")), failed.error


def _sigterm(pack: StartedPack) -> None:
    os.kill(pack.process._process.pid, signal.SIGTERM)  # type: ignore[attr-defined]


def _hang_up(pack: StartedPack) -> None:
    pack.process._stdin.close()  # type: ignore[attr-defined]


def _say(message: ToPack) -> Callable[[StartedPack], None]:
    return lambda pack: pack.tell(message)


@pytest.mark.parametrize(
    "end",
    [
        _say(Drain(grace_s=2.0)),
        _say(EndWork(pack_id="m", task_id=1, grace_s=2.0)),
        _say(Revoke(pack_id="m", task_id=1, epochs=(4,))),
        _sigterm,
        _hang_up,
    ],
    ids=["drain", "end-work", "revoke", "sigterm", "head-gone"],
)
def test_a_job_that_is_told_to_end_stays_undone(
    rig: Maker, tmp_path: Path, end: Callable[[StartedPack], None]
) -> None:
    """It ends with all its ranks, is neither recorded nor set aside, and leaves no work folder."""
    a = rig()
    pack = a.start(mpi_pack(mpi_spec(FOREVER, attempts=3)))
    pack.until_busy()
    wait_until(lambda: len(processes(tmp_path)) >= 3, "the ranks")
    end(pack)
    last = pack.until_exit(10)
    assert not pack.journal.exists()
    assert not a.work_left
    assert not processes(tmp_path)
    assert last.told_to_end is (end is _sigterm)


def test_nothing_survives_a_killed_program(rig: Maker, tmp_path: Path) -> None:
    """Killed without warning, the program leaves no rank behind, also none that ignores SIGTERM."""
    a = rig()
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"
    pack = a.start(mpi_pack(mpi_spec(stubborn)))
    pack.until_busy()
    wait_until(lambda: len(processes(tmp_path)) >= 3, "the ranks")
    os.kill(pack.process._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]
    wait_until(lambda: not processes(tmp_path), "the end of all ranks")


def test_other_orders_leave_it_alone(rig: Maker, tmp_path: Path) -> None:
    """An epoch or a task that is not its own does not concern it."""
    a = rig()
    go = tmp_path / "go"
    pack = a.start(mpi_pack(mpi_spec(f"while not os.path.exists({str(go)!r}): time.sleep(0.05)")))
    pack.until_busy()
    pack.tell(Revoke(pack_id="m", task_id=1, epochs=(3,)))
    pack.tell(EndWork(pack_id="m", task_id=2, grace_s=0.0))
    seen = len(pack.heard)
    wait_until(lambda: (pack.listen(0.1), len(pack.heard) > seen + 1)[1], "more reports")
    go.touch()
    assert pack.until_exit().done == 1


def test_a_job_that_ends_within_the_grace_time_counts(rig: Maker, tmp_path: Path) -> None:
    """A drain leaves it the time that it was given."""
    a = rig()
    go = tmp_path / "go"
    pack = a.start(mpi_pack(mpi_spec(f"while not os.path.exists({str(go)!r}): time.sleep(0.05)")))
    pack.until_busy()
    pack.tell(Drain(grace_s=30.0))
    go.touch()
    assert pack.until_exit().done == 1
    assert pack.output()[0].report.error is None


def test_the_ranks_of_a_killed_program_end(rig: Maker, tmp_path: Path) -> None:
    """Killed itself, it leaves no process; the next start clears its folder and records the job once."""
    a = rig()
    go = tmp_path / "go"
    spec = mpi_spec(f"while not os.path.exists({str(go)!r}): time.sleep(0.05)")
    pack = a.start(mpi_pack(spec))
    pack.until_busy()
    wait_until(lambda: len(processes(tmp_path)) >= 3, "the ranks")
    pack.process.kill()
    wait_until(lambda: not processes(tmp_path), "the end of the ranks", seconds=10)
    go.touch()
    again = a.start(mpi_pack(spec), incarnation=1)
    assert again.until_exit().done == 1
    assert not pack.journal.exists()
    assert not a.work_left


def test_with_nothing_left_it_ends_at_once(rig: Maker) -> None:
    """The job was recorded by an earlier start: no launcher, no journal."""
    a = rig(command=("no-such-launcher", "{ranks}"), mpi_command=("/bin/false", "{ranks}"))
    pack = a.start(mpi_pack(mpi_spec(), job=None))
    last = pack.until_exit()
    assert (last.state, last.idle, last.error) == ("ended", True, None)
    assert not pack.journal.exists()


@pytest.mark.parametrize("launcher", ["/bin/false", "/bin/true", "/bin/cat"])
def test_a_launcher_that_fails_is_no_fault_of_the_job(rig: Maker, launcher: str) -> None:
    """The pack dies and says what is wrong, so that the head starts it again; the job stays undone."""
    a = rig(mpi_command=(launcher, "{ranks}"))
    pack = a.start(mpi_pack(mpi_spec(attempts=3)))
    last = pack.until_exit()
    assert last.error is not None
    assert "not by itself" in last.error
    assert last.state == "running"
    assert pack.process.exited() == "exit status 1"
    assert not pack.journal.exists()


def test_a_job_does_not_run_into_the_end_of_the_allocation(rig: Maker) -> None:
    """At the deadline it is ended, and stays undone."""
    a = rig()
    pack = a.start(mpi_pack(mpi_spec(FOREVER)), seconds=2.0)
    pack.until_exit(10)
    assert not pack.journal.exists()


def test_a_container_that_the_site_cannot_run(rig: Maker) -> None:
    """The task cannot be run here, and it is said why."""
    a = rig()
    pack = a.start(mpi_pack(mpi_spec(container="image:1")))
    (task,) = pack.until_exit().tasks
    assert task.state == "failed"
    assert task.error is not None
    assert "[containers]" in task.error
