"""Commands in real containers of Charliecloud, over an image made here; Podman's guard over a client that detaches as Podman does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hpcpanda.allocation.containers import contain, container_command
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CommandPayload, ProcessPayload
from hpcpanda.domain.site import ContainerRuntime, ContainerSettings
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms import prepare
from tests.support.job_keeper import job_site, keeping

_PACKAGES = ("charliecloud-runtime", "busybox-static")
_PROGRAMS = ("cat", "env", "ls", "pwd", "sh", "sleep")
SETTINGS = ContainerSettings(runtime=ContainerRuntime.CHARLIECLOUD)


@pytest.fixture(scope="session")
def charliecloud() -> None:
    """Charliecloud and a program that needs no libraries; installed when they are missing and this is root."""
    missing = [p for p in ("ch-run", "busybox") if shutil.which(p) is None]
    if missing and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_PACKAGES)
        for words in (install, ("apt-get", "update", "--quiet"), install):
            subprocess.run(
                words,
                env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
                capture_output=True,
                check=False,
            )
            missing = [p for p in missing if shutil.which(p) is None]
            if not missing:
                return
    if missing:
        pytest.skip(f"{missing[0]} is not on PATH: as root, apt-get install {' '.join(_PACKAGES)}")


@pytest.fixture
def image(charliecloud: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is an image: one static program under several names, and a home folder of its own."""
    monkeypatch.setenv("USER", "tester")  # ch-run wants it
    root = tmp_path / "image"
    for folder in ("bin", "dev", "etc", "home/of-image", "proc", "sys", "tmp"):
        (root / folder).mkdir(parents=True)
    for name in ("passwd", "group"):
        (root / "etc" / name).touch()
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in _PROGRAMS:
        (root / "bin" / name).symlink_to("busybox")
    return root


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work folder below /tmp."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run(image: Path, folder: Path, script: str, *binds: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of a script in a container."""
    words = container_command(
        SETTINGS, str(image), ("sh", "-c", script), folder=folder, binds=binds, environment=environment, gpus=False
    )  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_command_has_its_folder_its_variables_and_nothing_of_the_home(image: Path, work: Path) -> None:
    """It writes into its work folder, its variables come through whole, the node's variables and files do not."""
    odd = """it's "$HOME", 'x'=\ty;"""
    script = (
        f"""pwd; ls /home; echo "$ODD|$LEFT_OUT"; test -e {os.__file__} || echo not seen; echo 42 > answer"""
    )
    os.environ["LEFT_OUT"] = "of the node"
    try:
        status, printed = run(image, work, script, ODD=odd)
    finally:
        del os.environ["LEFT_OUT"]
    assert (status, printed) == (0, f"{work}\nof-image\n{odd}|\nnot seen\n")
    assert (work / "answer").read_text() == "42\n"


def test_the_exit_status_comes_through(image: Path, work: Path) -> None:
    """Success, failure, and a program that is not there are told apart."""
    assert run(image, work, "exit 0")[0] == 0
    assert run(image, work, "exit 7")[0] == 7
    assert run(image, work, "no-such-program")[0] == 127


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder outside /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="hpcpanda-test-", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_a_folder_is_bound_where_the_image_has_a_place_for_it(image: Path, elsewhere: Path) -> None:
    """Outside /tmp the image must have the folder; if not, the runtime says which is missing."""
    (elsewhere / "data").write_text("there")
    status, printed = run(image, elsewhere, "cat data")
    assert status != 0
    assert f"{image}/var" in printed
    (image / elsewhere.relative_to("/")).mkdir(parents=True)
    assert run(image, elsewhere, "cat data") == (0, "there")


def test_killing_the_process_group_ends_all(image: Path, work: Path) -> None:
    """Nothing that the command has started in the container is left."""
    words = container_command(
        SETTINGS, str(image), ("sh", "-c", "sleep 600 & echo $!; exec sleep 600"),
        folder=work, binds=(), environment={}, gpus=False,
    )  # fmt: skip
    started = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert started.stdout is not None
    other = int(started.stdout.readline())
    assert alive(other)
    os.killpg(started.pid, signal.SIGKILL)
    assert started.wait(5) == -signal.SIGKILL
    until(lambda: not alive(other))
    started.stdout.close()


def spec(payload: CommandPayload | ProcessPayload, image: Path) -> TaskSpec:
    """A task of events in the image."""
    return TaskSpec(
        name="t", payload=payload, output=Output(file="o", format=OutputFormat.CONCAT), events=100, container=str(image)
    )  # fmt: skip


def test_events_of_both_forms_run_in_the_image(image: Path, work: Path) -> None:
    """A command a range, and a process fed ranges over descriptors that go into the container."""
    script = "ls /home > {output}; echo $WHAT {first} {last} >> {output}"
    command = spec(CommandPayload(command=("sh", "-c", script), environment={"WHAT": "range"}), image)
    runner = prepare(command, contain(SETTINGS, command)).runner(work)
    assert runner.run(3, 5) == b"of-image\nrange 3 5\n"
    runner.close()

    loop = """
        eval "exec 3<&$HPCPANDA_IN 4>&$HPCPANDA_OUT"
        while read -r verb first last seed output <&3; do
            test "$verb" = bye && exit
            ls /home > "$output"; echo "$WHAT $first $last" >> "$output"; echo done >&4
        done"""
    process = spec(ProcessPayload(command=("sh", "-c", loop), environment={"WHAT": "fed"}), image)
    fed = prepare(process, contain(SETTINGS, process)).runner(work)
    assert [fed.run(0, 2), fed.run(2, 9)] == [b"of-image\nfed 0 2\n", b"of-image\nfed 2 9\n"]
    fed.close()


def test_a_job_runs_in_the_image(image: Path, tmp_path: Path) -> None:
    """Its inputs are there, its outputs are kept, and one that hangs is ended with all that it has started."""
    (tmp_path / "cards").write_text("in")
    hangs = "sleep 600 & echo $! > other; exec sleep 600"
    with keeping(replace(job_site(), containers=SETTINGS)) as kept:
        good = kept.run(
            "sh", "-c", "ls /home > out; cat cards >> out; echo $HPCPANDA_JOB", container=str(image),
            inputs=(f"{tmp_path}/cards",), outputs=("out", "stdout.txt"),
        )  # fmt: skip
        ended = kept.result(good)
        assert ended.report.error is None
        assert ended.folder is not None
        assert (ended.folder / "out").read_text() == "of-image\nin"
        assert (ended.folder / "stdout.txt").read_text() == "7\n"
        run = kept.run("sh", "-c", hangs, container=str(image), walltime_s=1.0)
        file = kept.folder(run) / "other"
        found: list[str] = []

        def told() -> bool:
            found.extend(file.read_text().split() if file.exists() else ())
            return bool(found)

        until(told)
        other = int(found[0])
        assert kept.result(run).report.error is not None
        assert not alive(other)


_PODMAN = """#!/bin/sh
# As Podman: the container belongs to a process that detaches itself; 'kill' ends it by name.
here=$(dirname "$0")
case $1 in
run)
    name=${2#--name=}
    setsid sh -c 'echo $$ > "$0/'"$name"'.new"; mv "$0/'"$name"'.new" "$0/'"$name"'"; exec sleep 600' "$here" &
    test "$3" = leave && exit 9
    exec sleep 600 ;;
kill) exec kill -9 "$(cat "$here/$3")" ;;
esac
"""


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Path]:
    """A client program, whose containers are ended after the test."""
    folder = tmp_path / "podman"
    folder.mkdir()
    program = folder / "podman"
    program.write_text(_PODMAN)
    program.chmod(0o755)
    yield program
    for file in folder.glob("hpcpanda-*"):
        if alive(int(file.read_text())):
            os.kill(int(file.read_text()), signal.SIGKILL)


def guard(podman: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start the client by the guard."""
    return subprocess.Popen(
        [sys.executable, "-m", "hpcpanda.allocation.podman_guard", str(podman), "run", *words],
        start_new_session=True,
    )


def container(podman: Path) -> int:
    """Process of the container, once there is one."""
    until(lambda: [f for f in podman.parent.glob("hpcpanda-*") if f.suffix != ".new"])
    return int(next(f for f in podman.parent.glob("hpcpanda-*") if f.suffix != ".new").read_text())


def test_the_guard_ends_a_container_whose_client_is_killed(podman: Path) -> None:
    """SIGKILL to the process group leaves the container to nobody but the guard's watcher."""
    started = guard(podman)
    there = container(podman)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait(5)
    until(lambda: not alive(there))


def test_the_guard_leaves_with_the_clients_status(podman: Path) -> None:
    """An exit status is passed on, a signal is told as a shell tells it, and then the container is ended."""
    assert guard(podman, "leave").wait(10) == 9
    started = guard(podman)
    time_out = time.monotonic() + 10
    while time.monotonic() < time_out and len(list(podman.parent.glob("hpcpanda-????*"))) < 2:
        time.sleep(0.01)
    os.kill(started.pid, signal.SIGTERM)
    assert started.wait(10) == 128 + signal.SIGTERM


def alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "has not happened"
        time.sleep(0.01)
