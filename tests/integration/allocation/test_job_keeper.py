"""The job keeper with real programs: what succeeds, what fails, what is ended, and that nothing is ever left."""

from __future__ import annotations

import ast
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hpcpanda.allocation import job_process
from hpcpanda.domain.site import ContainerRuntime, ContainerSettings, GpuKind
from hpcpanda.payload.seeds import pythia_seed
from tests.support.job_keeper import Keeping, job_site, keeping
from tests.support.services import wait_until

SLEEPER = "import time; time.sleep(1000)"
DIES = "echo up; exec sleep 1000"
TIDY = "trap 'exit 1' TERM; echo up; while :; do sleep 0.01; done"
DAEMON = f"""
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", {SLEEPER!r}], {{"TMPDIR": os.environ["TMPDIR"]}})
    os._exit(0)
os.wait()
"""
"""Leaves an orphan in a session of its own, without the job's variables but for the one that these tests look for."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Keeping]:
    """One keeper for all tests that do not harm it."""
    with keeping() as kept:
        yield kept


@pytest.fixture
def kept() -> Iterator[Keeping]:
    """A keeper of its own."""
    with keeping() as own:
        yield own


def test_a_job_succeeds_and_its_outputs_stay_until_they_are_forgotten(
    shared: Keeping, tmp_path: Path
) -> None:
    (tmp_path / "cards-7.txt").write_text("input")
    run = shared.run(
        "/bin/sh", "-c",
        "cat cards-{job}.txt > out-{job}.txt; mkdir sub; echo $WHICH > sub/b; echo said; echo wrong >&2; cat",
        inputs=(f"{tmp_path}/cards-{{job}}.txt",),
        outputs=("out-{job}.txt", "sub/b", "stdout.txt"),
        environment={"WHICH": "{job} of {jobs}"},
    )  # fmt: skip
    ended = shared.result(run)
    report = ended.report
    assert (report.error, report.exit_status, report.signal) == (None, 0, None)
    assert (report.job, report.attempt, report.host) == (7, 1, socket.gethostname())
    assert (report.stdout_tail, report.stderr_tail) == ("said\n", "wrong\n")
    assert ended.folder == shared.folder(run)
    assert ended.outputs == ("out-7.txt", "sub/b", "stdout.txt")
    assert [(ended.folder / name).read_text() for name in ended.outputs] == ["input", "7 of 100\n", "said\n"]
    shared.keeper.forget(run)
    wait_until(lambda: not shared.folder(run).exists(), "the removal of the work folder")


def test_placeholders_and_variables(shared: Keeping) -> None:
    """Words of the command are filled in; an MPI launcher's variables are not passed on, the payload's win."""
    run = shared.run(
        "/bin/sh", "-c",
        "echo {job} {jobs} {seed} {cores} {gpus} {memory_mb} {other}"
        " $HPCPANDA_JOB $HPCPANDA_JOBS $HPCPANDA_ATTEMPT $HPCPANDA_CORES $OMP_NUM_THREADS $TMPDIR $PWD $(/bin/pwd)",
        cores=2, memory_mb=300, attempt=3,
    )  # fmt: skip
    folder = str(shared.folder(run))
    said = shared.result(run).report.stdout_tail.split()
    assert said == [
        *f"7 100 {pythia_seed(3, 7)} 2 0 300 {{other}} 7 100 3 2 2".split(),
        folder,
        folder,
        folder,
    ]
    run = shared.run("/bin/sh", "-c", "echo $OMP_NUM_THREADS", cores=2, environment={"OMP_NUM_THREADS": "1"})
    assert shared.result(run).report.stdout_tail == "1\n"
    assert job_process.base_environment({"PMI_FD": "5", "PMIX_RANK": "0", "PATH": "/bin"}) == {"PATH": "/bin"}


def test_a_job_inherits_no_descriptor_signal_setting_or_input(shared: Keeping) -> None:
    """Only 0, 1 and 2 are open, no signal is ignored or blocked, and it leads its own session."""
    run = shared.python(
        "import os, sys; print(sorted(os.listdir('/proc/self/fd'))[:3], len(os.listdir('/proc/self/fd')))\n"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('SigBlk', 'SigIgn'))])\n"
        "print(os.getsid(0) == os.getpgid(0) == os.getpid(), repr(sys.stdin.read()))"
    )
    lines = shared.result(run).report.stdout_tail.splitlines()
    assert lines[0] == "['0', '1', '2'] 4"  # the fourth is the listing itself
    blocked, ignored = (int(mask, 16) for mask in ast.literal_eval(lines[1]))
    of_glibc = 1 << 31 | 1 << 32
    of_python = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert (blocked, ignored & ~of_glibc) == (0, of_python)
    assert lines[2] == "True ''"


@pytest.mark.parametrize(
    ("command", "status", "number", "error"),
    [
        (("/bin/sh", "-c", "echo no; exit 3"), 3, None, "exit status 3"),
        (("/bin/sh", "-c", "kill -SEGV $$"), None, signal.SIGSEGV, "killed by signal 11 (SIGSEGV)"),
        (("no-such-program",), None, None, "no program 'no-such-program'"),
        (("/no/such/program",), None, None, "cannot start '/no/such/program': No such file or directory"),
        (("/etc/passwd",), None, None, "cannot start '/etc/passwd': Permission denied"),
        (("/bin/true", "x" * 3_000_000), None, None, "cannot start '/bin/true': Argument list too long"),
    ],
)  # fmt: skip
def test_a_job_that_fails_says_why_and_leaves_nothing(
    shared: Keeping, command: tuple[str, ...], status: int | None, number: int | None, error: str
) -> None:
    run = shared.run(*command)
    ended = shared.result(run)
    assert error in str(ended.report.error)
    assert (ended.report.exit_status, ended.report.signal) == (status, number)
    assert ended.folder is None
    assert not ended.node_at_fault
    assert not shared.folder(run).exists()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("true", "did not leave 'out'"),
        ("ln -s /etc/passwd out", "'out' is not a regular file in the work folder"),
        ("mkfifo out", "'out' is not a regular file"),
        ("mkdir out", "'out' is not a regular file"),
        ("dd if=/dev/zero of=out bs=1M count=3", "kept 3 MiB in its work folder; the limit is 2 MiB (job.disk_mb)"),
    ],
)  # fmt: skip
def test_an_output_must_be_a_file_of_the_work_folder(shared: Keeping, script: str, error: str) -> None:
    run = shared.run("/bin/sh", "-c", script, outputs=("out",), disk_mb=2)
    ended = shared.result(run)
    assert error in str(ended.report.error)
    assert ended.report.exit_status == 0
    assert ended.folder is None
    assert not shared.folder(run).exists()


def test_an_output_below_a_linked_folder_is_refused(shared: Keeping) -> None:
    run = shared.run("/bin/ln", "-s", "/etc", "sub", outputs=("sub/passwd",))
    assert "not a regular file in the work folder" in str(shared.result(run).report.error)


def test_a_job_sees_nothing_of_the_one_before(kept: Keeping) -> None:
    """Its runner uses the work folder again, under another name."""
    first = kept.run("/bin/sh", "-c", "echo secret; echo secret >&2")
    kept.result(first)
    inode = kept.folder(first).lstat().st_ino
    kept.keeper.forget(first)
    second = kept.run("/bin/sh", "-c", "cat *; ls -ai | sort -k 2")
    report = kept.result(second).report
    assert report.stdout_tail.split()[:2] == [str(inode), "."]
    assert "secret" not in report.stdout_tail
    assert [word for word in report.stdout_tail.split() if not word.isdigit()] == [
        ".",
        "..",
        "stderr.txt",
        "stdout.txt",
    ]
    assert kept.folder(second).exists()
    assert not kept.folder(first).exists()


def test_a_read_only_folder_of_a_failed_job_is_removed(shared: Keeping) -> None:
    run = shared.run("/bin/sh", "-c", "mkdir -p a/b; touch a/b/c; chmod 500 a/b a; exit 1")
    shared.result(run)
    assert not shared.folder(run).exists()


def test_an_input_that_is_not_there(shared: Keeping) -> None:
    ended = shared.result(shared.run("/bin/true", inputs=("/no/such/file-{job}",)))
    assert "there is no file /no/such/file-7" in str(ended.report.error)
    assert not ended.node_at_fault


def test_a_container_needs_a_runtime(shared: Keeping) -> None:
    ended = shared.result(shared.run("/bin/true", container="docker://some/image"))
    assert "this site has no container runtime" in str(ended.report.error)


def test_a_container_is_told_what_the_job_needs(tmp_path: Path) -> None:
    """The runtime is a script that prints its words: inputs are bound, the job's variables go inside."""
    runtime = tmp_path / "apptainer"
    runtime.write_text('#!/bin/sh\nenv | grep APPTAINERENV_; echo "$@"\n')
    runtime.chmod(0o755)
    (tmp_path / "in.txt").touch()
    site = replace(
        job_site(), containers=ContainerSettings(runtime=ContainerRuntime.APPTAINER, program=str(runtime))
    )
    with keeping(site) as kept:
        run = kept.run(
            "prog", "{job}", container="/images/a.sif", inputs=(f"{tmp_path}/in.txt",), environment={"A": "b"}
        )  # fmt: skip
        report = kept.result(run).report
        assert report.error is None
        assert "APPTAINERENV_HPCPANDA_JOB=7\n" in report.stdout_tail
        assert "APPTAINERENV_A=b\n" in report.stdout_tail
        assert f"--bind={tmp_path}:{tmp_path}:ro" in report.stdout_tail
        assert report.stdout_tail.endswith("/images/a.sif prog 7\n")
        ended = kept.result(kept.run("prog", container="not an image"))
        assert "container" in str(ended.report.error)


def test_what_it_prints_may_be_anything(shared: Keeping) -> None:
    """The last 2000 bytes come along as text, without NUL, which PostgreSQL does not take."""
    run = shared.python("import sys; sys.stdout.buffer.write(b'x' * 5000 + bytes(range(256)) * 4)")
    text = shared.result(run).report.stdout_tail
    assert 1500 < len(text) <= 2000
    assert text.startswith("xxx")
    assert "\0" not in text
    assert "abc" in text


def test_a_tree_that_uses_too_much_memory_is_ended(shared: Keeping) -> None:
    """Four processes of 40 MiB each; none alone is over the limit."""
    code = (
        "import os, time\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: break\n"
        "hog = bytearray(40 << 20); hog[::4096] = b'x' * len(hog[::4096])\n"
        "time.sleep(1000)"
    )
    ended = shared.result(shared.python(code, memory_mb=120))
    assert "the limit is 120 MiB (job.memory_mb)" in str(ended.report.error)
    assert ended.report.max_rss_mb > 120
    assert ended.report.wall_s < 60
    assert not shared.job_processes()


def test_memory_that_processes_share_counts_once(shared: Keeping) -> None:
    """Five processes share 60 MiB: resident five times, used once."""
    code = (
        "import os, time\n"
        "hog = bytearray(60 << 20); hog[::4096] = b'x' * len(hog[::4096])\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0: break\n"
        "time.sleep(1.2)"
    )
    report = shared.result(shared.python(code, memory_mb=150)).report
    assert report.error is None
    assert 60 < report.max_rss_mb < 150


def test_a_job_that_runs_too_long_is_ended(shared: Keeping) -> None:
    report = shared.result(shared.run("/bin/sleep", "1000", walltime_s=0.3)).report
    assert report.error == "ran for more than 0.3 s (job.walltime_s)"
    assert report.signal == signal.SIGTERM
    assert 0.3 < report.wall_s < 60


def test_an_ended_job_gets_sigterm_then_sigkill(shared: Keeping) -> None:
    """One tidies up and ends, the other takes no notice; both say why they were ended."""
    polite = shared.run("/bin/sh", "-c", "trap 'echo tidy; exit 0' TERM; echo up; sleep 1000 & wait")
    deaf = shared.run("/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    for run in (polite, deaf):
        wait_until(lambda r=run: _said(shared, r) == "up\n", "the job's begin")
        shared.keeper.end(run, "a clone won")
    shared.keeper.end(999_999, "unknown")  # takes no effect
    first, second = shared.result(polite).report, shared.result(deaf).report
    assert (first.error, first.exit_status) == ("a clone won", 0)
    assert "tidy" in first.stdout_tail
    assert (second.error, second.signal) == ("a clone won", signal.SIGKILL)
    assert second.wall_s >= 2
    assert not shared.job_processes()


def test_a_daemon_does_not_survive_its_job(shared: Keeping) -> None:
    """Neither one that has just been born when its job ends, nor one that was there for a while."""
    run = shared.python(DAEMON)
    assert shared.result(run).report.error is None
    assert not shared.job_processes()
    run = shared.python(f"{DAEMON}while not os.path.exists('end'): time.sleep(0.01)")
    wait_until(lambda: len(_of(shared, run)) == 2, "the daemon's begin")
    (shared.folder(run) / "end").touch()
    assert shared.result(run).report.error is None
    assert not shared.job_processes()


def test_a_work_folder_that_grows_too_large(shared: Keeping) -> None:
    """Many files, none large, found out while it runs."""
    code = "import time\nfor i in range(60): open(f'f{i}', 'wb').write(bytes(100_000))\ntime.sleep(1000)"
    report = shared.result(shared.python(code, disk_mb=5)).report
    assert "MiB in its work folder; the limit is 5 MiB (job.disk_mb)" in str(report.error)


def test_a_job_that_floods_its_stdout_is_ended(shared: Keeping) -> None:
    report = shared.result(shared.run("/bin/sh", "-c", "exec cat /dev/zero", disk_mb=10)).report
    assert "the limit is 10 MiB (job.disk_mb)" in str(report.error)
    assert report.wall_s < 60


def test_a_job_is_bound_to_its_processors(shared: Keeping) -> None:
    mine = sorted(os.sched_getaffinity(0))
    for wanted in ([mine[-1]], [mine[0]], mine):
        run = shared.python(
            "import os; print(sorted(os.sched_getaffinity(0)))",
            processors=tuple(wanted) if wanted != mine else (),
        )
        assert shared.result(run).report.stdout_tail == f"{wanted}\n"
    ended = shared.result(shared.run("/bin/true", processors=(4000,)))
    assert "cannot bind it to processors [4000]" in str(ended.report.error)
    assert ended.node_at_fault


@pytest.mark.parametrize(
    ("kind", "variable"),
    [
        (GpuKind.CUDA, "CUDA_VISIBLE_DEVICES"),
        (GpuKind.ROCM, "ROCR_VISIBLE_DEVICES"),
        (GpuKind.LEVEL_ZERO, "ZE_AFFINITY_MASK"),
    ],
)  # fmt: skip
def test_a_job_sees_its_gpus_only(kind: GpuKind, variable: str) -> None:
    with keeping(job_site(gpus=4, gpu_kind=kind)) as kept:
        command = ("/bin/sh", "-c", f"echo {{gpus}} ${{{variable}-unset}}.")
        for gpus, said in (((1, 3), "2 1,3.\n"), ((), "0 .\n")):
            assert kept.result(kept.run(*command, gpus=gpus)).report.stdout_tail == said


def test_gpu_variables_are_left_alone_where_no_node_has_gpus(shared: Keeping) -> None:
    run = shared.run("/bin/sh", "-c", "echo ${CUDA_VISIBLE_DEVICES-unset}")
    assert shared.result(run).report.stdout_tail == "unset\n"


def test_use_of_the_whole_tree_is_reported(shared: Keeping) -> None:
    """Processor time and memory of the job, and of a daemon of it that is killed in the end."""
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    while True: pass\n"
        "data = bytearray(50 << 20); data[::4096] = b'x' * len(data[::4096])\n"
        "while time.process_time() < 0.4: pass\n"
        "f = open('big', 'wb'); f.write(data); os.fsync(f.fileno())\n"
    )
    report = shared.result(shared.python(code)).report
    assert report.error is None
    assert 0.45 < report.cpu_s < 4 * report.wall_s + 1
    assert 50 < report.max_rss_mb < 120
    assert report.written_mb == pytest.approx(50, abs=5)


def test_commands_larger_than_any_socket_do_not_block(shared: Keeping) -> None:
    """Twenty at once of 1 MB each: the agent goes on, and all of them come through."""
    words = ["x" * 100_000] * 10
    runs = [shared.run("/bin/true", *words) for _ in range(20)]
    assert {shared.result(run).report.error for run in runs} == {None}
    for run in runs:
        shared.keeper.forget(run)


def test_a_killed_runner_is_the_nodes_fault(kept: Keeping) -> None:
    """What it ran is ended, in whatever session; other jobs and the keeper go on."""
    other = kept.python("import time; time.sleep(1.5)")
    run = kept.python(f"import os; os.setsid() if os.fork() == 0 else 0; {SLEEPER}")
    wait_until(lambda: len(_of(kept, run)) == 2, "the job's two processes")
    runner = psutil.Process(min(p.pid for p in _of(kept, run))).parent()
    assert runner is not None
    assert runner.parent() == kept.process
    runner.kill()
    ended = kept.result(run)
    assert ended.node_at_fault
    assert ended.runner_lost
    assert "the process that kept it" in str(ended.report.error)
    assert not _of(kept, run)
    assert not kept.folder(run).exists()
    assert kept.result(kept.run("/bin/true")).report.error is None
    assert kept.result(other).report.error is None


def test_signals_of_a_batch_system_do_not_end_it(kept: Keeping) -> None:
    kept.result(kept.run("/bin/true"))
    for process in (kept.process, *kept.process.children()):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            process.send_signal(number)
    assert kept.result(kept.run("/bin/true")).report.error is None


@pytest.mark.parametrize("script", [DIES, TIDY])
def test_a_job_that_the_batch_system_ended_is_not_at_fault(kept: Keeping, script: str) -> None:
    """It signals every process of an allocation, and the job first; some jobs end by themselves then."""
    run = kept.run("/bin/sh", "-c", script)
    wait_until(lambda: _said(kept, run) == "up\n", "the job's begin")
    for process in reversed(kept.process.children(recursive=True)):
        process.terminate()
    ended = kept.result(run)
    assert ended.report.error is not None
    assert ended.node_at_fault


def test_a_job_that_ends_itself_by_a_signal_is_at_fault(shared: Keeping) -> None:
    ended = shared.result(shared.run("/bin/sh", "-c", "kill -TERM $$"))
    assert ended.report.error == "it was killed by signal 15 (SIGTERM)"
    assert not ended.node_at_fault


def test_no_job_survives_a_killed_keeper(tmp_path: Path) -> None:
    """Nor do runners, nor work folders; the agent hears of it."""
    (tmp_path / "scratch").mkdir()
    kept = Keeping(tmp_path / "scratch", job_site())
    try:
        kept.result(kept.run("/bin/true"))
        kept.python(SLEEPER)
        kept.python(DAEMON + SLEEPER)
        wait_until(lambda: len(kept.job_processes()) == 3, "the jobs' begin")
        processes = [*kept.process.children(recursive=True), *kept.job_processes()]
        kept.process.kill()
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive
        assert kept.keeper.notices() is None
    finally:
        assert kept.keeper.close() == -signal.SIGKILL
    assert not list(kept.scratch.iterdir())


def test_no_job_survives_a_killed_agent(tmp_path: Path) -> None:
    """The agent is killed with another process forked from it still holding its socket, as a fork server would."""
    (tmp_path / "scratch").mkdir()
    agent = os.fork()
    if agent == 0:
        try:
            kept = Keeping(tmp_path / "scratch", job_site())
            for code in (SLEEPER, DAEMON + SLEEPER):
                kept.python(code)
            kept.result(kept.run("/bin/true"))
            (tmp_path / "pid").write_text(str(kept.keeper.pid))
            if os.fork() == 0:
                signal.alarm(20)
            signal.pause()
        finally:
            os._exit(1)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", "the keeper")
    keeper = psutil.Process(int((tmp_path / "pid").read_text()))
    wait_until(
        lambda: len(keeper.children(recursive=True)) == 3 + 3, "three runners and three processes of jobs"
    )
    processes = [keeper, *keeper.children(recursive=True)]
    os.kill(agent, signal.SIGKILL)
    os.waitpid(agent, 0)
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert not list((tmp_path / "scratch").iterdir())


def test_closing_ends_everything(kept: Keeping) -> None:
    """Deaf jobs, daemons, folders of successful runs: the fixture looks for what is left."""
    kept.result(kept.run("/bin/true"))
    kept.python(f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}")
    kept.python(DAEMON + SLEEPER)
    wait_until(lambda: len(kept.job_processes()) == 3, "the jobs' begin")
    assert kept.keeper.close() == 0
    assert kept.keeper.close() == 0


def _said(kept: Keeping, run: int) -> str:
    path = kept.folder(run) / "stdout.txt"
    return path.read_text() if path.exists() else ""


def _of(kept: Keeping, run: int) -> list[psutil.Process]:
    return kept.of_run(run)
