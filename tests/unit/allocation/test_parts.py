"""The smaller parts of an allocation: logs with a limit, the launcher's words, the board, what is left of a pack."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hpcpanda.allocation import worker_log
from hpcpanda.allocation.board import Board, InHand
from hpcpanda.allocation.launch import launch_command
from hpcpanda.allocation.plan import Drain, Revoke
from hpcpanda.allocation.process_watch import tree_rss_bytes
from hpcpanda.allocation.recovery import last_incarnation, work_left
from hpcpanda.allocation.spool import MESSAGE, Spool, journal_name, read_message, write_message
from hpcpanda.allocation.worker_log import LogPipe, NodeLog
from hpcpanda.domain.errors import CorruptData, SchedulerFailed
from hpcpanda.domain.site import LauncherSettings
from tests.support.allocation import event_pack
from tests.support.services import wait_until


def test_a_log_ends_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit nothing is written, and the file says so."""
    monkeypatch.setattr(worker_log, "CAP_BYTES", 10)
    log = NodeLog(tmp_path / "log")
    for _ in range(5):
        log.write(b"1234")
    text = (tmp_path / "log").read_text()
    assert text.startswith("123412341234")
    assert text.count("dropped") == 1


def test_the_tail_of_a_log_is_kept_for_errors(tmp_path: Path) -> None:
    """The last words of a worker are known although nobody read them before."""
    pipe = LogPipe(NodeLog(tmp_path / "log"))
    os.write(pipe.write_end, b"x" * 3000 + b" the last words \n")
    os.close(pipe.write_end)
    assert pipe.tail().endswith("x the last words")
    assert not pipe.read()
    pipe.close()


def test_the_launcher_is_looked_up_beside_python() -> None:
    """``mpiexec`` is found where the MPICH wheel puts it, and the number of ranks is filled in."""
    command = launch_command(LauncherSettings(), 7)
    assert command == [str(Path(sys.executable).parent / "mpiexec"), "-n", "7"]


def test_a_missing_launcher_is_refused() -> None:
    """A launcher that is nowhere is named, with the place to look."""
    with pytest.raises(SchedulerFailed, match=r"no-such-launcher.*\[launcher\]"):
        launch_command(LauncherSettings(command=("no-such-launcher", "{ranks}")), 1)


def test_the_board_tells_what_each_worker_has_in_hand() -> None:
    """One line a worker, cleared when it is done or dead."""
    board = Board(2)
    board.writer(1)(3, 10, 20, 1.5)
    assert board.read(0) is None
    assert board.read(1) == InHand(3, 10, 20, 1.5)
    board.clear(1)
    assert board.read(1) is None


def test_memory_is_counted_over_the_whole_tree() -> None:
    """A process and its children are counted; one that is gone is nothing."""
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdout.readline()
        alone = int(Path(f"/proc/{parent.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
        assert tree_rss_bytes(parent.pid) > 1.3 * alone
        parent.stdin.write(b"\n")
    assert tree_rss_bytes(parent.pid) == 0


def test_a_message_that_is_no_message_is_refused(tmp_path: Path) -> None:
    """Cut, unknown or with a field too many: the file is named."""
    path = tmp_path / "000001.json"
    for text in ('{"kind":"drain","grace', '{"kind":"dance"}', '{"kind":"drain","grace_s":1,"why":"x"}'):
        path.write_text(text)
        with pytest.raises(CorruptData, match=r"000001\.json"):
            read_message(path, MESSAGE)
    write_message(path, MESSAGE, Drain(grace_s=1.0))
    assert read_message(path, MESSAGE) == Drain(grace_s=1.0)
    write_message(path, MESSAGE, Revoke(pack_id="p", task_id=1, epochs=(1, 2)), durable=False)
    assert read_message(path, MESSAGE) == Revoke(pack_id="p", task_id=1, epochs=(1, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["000001.json"]


def test_a_file_that_is_no_journal_hides_nothing(tmp_path: Path) -> None:
    """A journal cut before its header, or foreign bytes in its place: all events are left."""
    spool = Spool(tmp_path)
    events = spool.events(1)
    events.mkdir(parents=True)
    (events / journal_name("a", "p", 0, 0)).write_bytes(b"")
    (events / journal_name("a", "p", 12, 0)).write_bytes(b"not a journal at all")
    (events / journal_name("a", "other", 99, 0)).write_bytes(b"")
    pack = event_pack((1, 0, 10))
    assert work_left(spool, "a", pack) == pack.work


def test_the_starts_of_a_pack_are_counted_by_its_run_files(tmp_path: Path) -> None:
    """Whether or not a start has left a journal, its number is used; packs with like names do not mix."""
    folder = Spool(tmp_path).allocation("a")
    folder.create()
    assert last_incarnation(folder, "p1") == -1
    for name in ("p1-i0.json", "p1-i12.json", "p11-i40.json", "p1-i13.json.tmp"):
        (folder.packs / name).touch()
    assert last_incarnation(folder, "p1") == 12


def test_a_work_folder_goes_when_its_last_user_is_gone(tmp_path: Path) -> None:
    """Killed without warning, a process leaves no work folder; a child forked from it keeps it until it ends too."""
    code = (
        "import os, sys, signal; from hpcpanda.allocation.work_folder import make_work_folder;"
        "print(make_work_folder('a'), flush=True);"
        "r, w = os.pipe(); child = os.fork(); (os.close(w), os.read(r, 1), os._exit(0)) if child == 0 else None;"
        "sys.stdin.readline(); os.write(w, b'x'); os.waitpid(child, 0); os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        (folder / "file").write_text("x")
        assert folder.parent == tmp_path
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait()
    until = time.monotonic() + 30
    while folder.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not folder.exists()


def test_a_work_folder_left_behind_is_removed_by_the_next_one(tmp_path: Path) -> None:
    """What was killed together with its remover is removed; a folder in use, and what is no work folder, stay."""
    code = (
        "import os, sys, time; from hpcpanda.allocation.work_folder import make_work_folder;"
        "print(make_work_folder('a', sys.argv[1]), flush=True); sys.stdin.readline()"
    )

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    foreign = tmp_path / "hpcpanda-parsl-x"
    foreign.mkdir()
    with begin() as killed, begin() as living:
        folders = [_first_line(killed), _first_line(living)]
        for remover in psutil.Process(killed.pid).children():
            remover.kill()
        killed.kill()
        killed.wait()
        assert folders[0].exists(), "nobody was left to remove it"
        (folders[0] / "file").write_text("x")
        with begin() as after:
            third = _first_line(after)
            wait_until(lambda: not folders[0].exists(), "the end of the folder that was left")
            assert folders[1].exists()
            assert third.exists()
            assert foreign.exists()


def _first_line(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())
