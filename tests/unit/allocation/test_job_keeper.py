"""Parts of the job keeper: frames, variables, room in folders, what is left, and the look at a node."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcpanda.allocation import job_limits
from hpcpanda.allocation.job_folders import WorkFolders
from hpcpanda.allocation.job_limits import folder_bytes
from hpcpanda.allocation.job_outcome import STREAMS, outputs_problem, remove_folder, tail
from hpcpanda.allocation.job_process import job_variables
from hpcpanda.allocation.job_run import JobRun
from hpcpanda.allocation.job_wire import Channel, Frame, FrameKind
from hpcpanda.allocation.node_check import check_node, memory_bytes
from hpcpanda.allocation.process_watch import children, descendants, rss_bytes, tree_rss_bytes
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.site import GpuKind
from tests.support.job_keeper import job_site

FRAMES = st.lists(
    st.builds(
        Frame,
        st.sampled_from(FrameKind),
        st.integers(0, 2**64 - 1),
        st.binary(max_size=20) | st.sampled_from([b"x" * 300_000]),
    ),
    max_size=8,
)


@given(frames=FRAMES, tail_bytes=st.integers(0, 12))
def test_frames_arrive_whole_and_in_order(frames: list[Frame], tail_bytes: int) -> None:
    """However much the socket takes at a time; a frame cut off by the end is not delivered."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender, receiver = Channel(ours), Channel(theirs)
        for frame in frames:
            sender.send(frame)
        got: list[Frame] = []
        while sender.pending:
            got += receiver.receive() or ()
            sender.flush()
        ours.send(bytes(tail_bytes))
        ours.close()
        while (more := receiver.receive()) is not None:
            got += more
    assert got == frames


def test_a_channel_whose_other_end_is_gone_keeps_nothing() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        channel = Channel(ours)
        channel.send(Frame(FrameKind.RUN, 1, b"x"))
        assert not channel.pending
        assert channel.receive() is None


def test_gpus_keep_the_names_that_the_batch_system_gave_them(tmp_path: Path) -> None:
    """Index 1 is the second of those that the pack itself sees; what the payload says of GPUs does not count."""
    run = JobRun(
        run_id=1, task_id=1, epoch=1, job=0, attempt=1, jobs=1, seed=1,
        payload=JobPayload(command=("x",)), request=JobRequest(gpus=2), gpus=(1, 3),
    )  # fmt: skip
    nodes = job_site(gpus=4, gpu_kind=GpuKind.CUDA).nodes
    payload = {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    for given_names, wanted in (("GPU-a,GPU-b,GPU-c,GPU-d", "GPU-b,GPU-d"), ("", "1,3"), ("7,8", "8,3")):
        base = {"CUDA_VISIBLE_DEVICES": given_names}
        variables = job_variables(run, payload, nodes, base, tmp_path)
        assert variables["CUDA_VISIBLE_DEVICES"] == wanted
    assert job_variables(replace(run, gpus=()), {}, nodes, {}, tmp_path)["CUDA_VISIBLE_DEVICES"] == ""


def test_room_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse files count with what they take, hard links once, links do not lead out; the look is bounded."""
    (tmp_path / "sub").mkdir()
    empty = folder_bytes(tmp_path)
    (tmp_path / "sub/real").write_bytes(os.urandom(500_000))
    os.link(tmp_path / "sub/real", tmp_path / "again")
    (tmp_path / "out").symlink_to("/usr")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**9)
    assert 500_000 <= folder_bytes(tmp_path) - empty < 600_000
    for i in range(20):
        (tmp_path / f"f{i}").write_bytes(bytes(4096))
    all_of_it = folder_bytes(tmp_path)
    monkeypatch.setattr(job_limits, "MAX_FILES", 5)
    assert folder_bytes(tmp_path) < all_of_it
    assert folder_bytes(tmp_path / "gone") == 0


def _soil(folder: Path, how: str) -> None:
    out = folder / "stdout.txt"
    match how:
        case "another file":
            (folder / "more").touch()
        case "a file is gone":
            out.unlink()
        case "a link":
            out.unlink()
            out.symlink_to("/etc/passwd")
        case "a second name":
            os.link(out, folder.parent / "second")
        case "mode of the folder":
            folder.chmod(0o777)
        case "mode of a file":
            out.chmod(0o666)
        case "an attribute":
            os.setxattr(folder, "user.mine", b"1")
        case "much printed":
            out.write_bytes(bytes(1 << 17))
        case _:
            out.write_text("a little printed")


@pytest.mark.parametrize(
    "how",
    [
        "another file", "a file is gone", "a link", "a second name", "mode of the folder", "mode of a file",
        "an attribute", "much printed", "nothing",
    ],
)  # fmt: skip
def test_only_a_folder_that_is_as_new_is_used_again(tmp_path: Path, how: str) -> None:
    folders = WorkFolders(tmp_path)
    first = folders.make(1)
    for name in STREAMS:
        os.close(os.open(first / name, os.O_CREAT, 0o600))
    inode = first.lstat().st_ino
    other = folders.make(2)  # takes the number that a folder made anew would have
    _soil(first, how)
    folders.remove(1)
    assert not first.exists()
    other.rmdir()
    again = folders.make(3)
    assert (len(list(again.iterdir())) == 2) == (how == "nothing")
    assert (again.lstat().st_ino == inode) or how != "nothing"
    folders.remove(3)
    folders.remove(4)  # was never made
    folders.close()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_what_is_an_output(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "sub/file")
    (tmp_path / "folder").symlink_to(tmp_path / "sub")
    assert outputs_problem(tmp_path, ["sub/file"]) is None
    for name in ("link", "folder/file", "sub", "none", "sub/file/none"):
        assert f"{name!r}" in str(outputs_problem(tmp_path, ["sub/file", name]))


def test_the_end_of_a_file_as_text(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a" * 3000 + "é\0".encode() + b"\xff")
    with path.open("rb") as file:
        assert tail(file.fileno()) == "a" * 1996 + "é\ufffd\ufffd"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_its_owner_may_not_read_is_removed(tmp_path: Path) -> None:
    """As an ordinary user, whom modes hold off."""
    top = Path("/tmp") / f"hpcpanda-test-{os.getpid()}"
    top.mkdir()
    os.chown(top, 65534, 65534)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            (top / "job-1/a/b").mkdir(parents=True)
            (top / "job-1/a/b/c").touch()
            for place, mode in (("a/b", 0o500), ("a", 0o000)):
                (top / "job-1" / place).chmod(mode)
            remove_folder(top / "job-1")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert not list(top.iterdir())
    top.rmdir()


def test_processes_started_by_a_thread_are_seen() -> None:
    """The kernel keeps children with the thread that started them."""
    code = (
        "import subprocess, sys, threading\n"
        "def begin(): subprocess.Popen(['sleep', '100']); print('up', flush=True); sys.stdin.read()\n"
        "t = threading.Thread(target=begin); t.start(); t.join()"
    )
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            (below,) = children(process.pid)
            assert list(descendants(process.pid)) == [below]
            assert tree_rss_bytes(process.pid) > rss_bytes(process.pid) > 1 << 20
        finally:
            os.kill(below, 9)
            process.kill()


def test_a_node_as_the_site_file_says_has_no_complaints(tmp_path: Path) -> None:
    assert check_node(job_site(cores=len(os.sched_getaffinity(0)), oversubscribe=False), tmp_path) == []


def test_a_node_that_is_less_than_the_site_file_says(tmp_path: Path) -> None:
    """Each complaint names the field; pretended nodes are not held to their cores."""
    site = job_site(cores=4000, memory_mb=60_000_000, oversubscribe=False)
    cores, memory = check_node(site, tmp_path)
    assert "nodes.cores says 4000" in cores
    assert "nodes.memory_mb says 60000000" in memory
    assert check_node(job_site(cores=4000), tmp_path) == []
    (missing,) = check_node(job_site(), tmp_path / "none")
    assert "nodes.scratch" in missing


def test_memory_that_a_control_group_allows(tmp_path: Path) -> None:
    """The least of the machine's and of what any group above allows; version 1 and 2."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       1048576 kB\nMemFree: 3 kB\n")
    for place, file, text in (
        ("a/b", "memory.max", "max"),
        ("a", "memory.max", "536870912"),
        ("memory/c", "memory.limit_in_bytes", "268435456"),
    ):
        (groups / place).mkdir(parents=True, exist_ok=True)
        (groups / place / file).write_text(f"{text}\n")
    for lines, wanted in (
        ("0::/a/b\n", 512),
        ("5:cpu,memory:/c\n0::/\n", 256),
        ("5:cpuset:/c\n0::/other\n", 1024),
    ):
        (proc / "self/cgroup").write_text(lines)
        assert memory_bytes(proc, groups) == wanted << 20
