"""Outputs arrive whole, the manifest last, nothing is overwritten; killed before any step, it is begun again. Real files."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from hpcpanda_edge.staging.copying import GivenUp, NoRoom
from hpcpanda_edge.staging.outward import Move, check_destination, move, require_free, tag_of
from hpcpanda_edge.staging.places import Destination

from hpcpanda.domain.errors import Conflict, InvalidValue
from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.intervals import IntervalSet

DATA = bytes(range(256)) * 2000
FILES = {"t.zip": DATA, "t.zip.manifest.json": b"{}", "t.zip.reports.jsonl": b"report"}


def never() -> bool:
    return False


def order_of(spool: Path, destination: Destination) -> Move:
    """A merged task in a spool."""
    folder = spool / "tasks" / "7" / "output"
    folder.mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    output = OutputFile(
        task_id=7,
        path=str(folder / "t.zip"),
        manifest=str(folder / "t.zip.manifest.json"),
        events=IntervalSet.span(0, 5),
        digest="sha256:0",
        size=len(DATA),
    )
    marker = folder.with_name("moved")
    return Move(output=output, folder=folder, marker=marker, destination=destination, tag=tag_of("here", 7))


@pytest.fixture(params=["same file system", "another file system"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The user's folder."""
    if request.param == "same file system":
        (tmp_path / "out").mkdir()
        yield tmp_path / "out"
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("there is only one file system here")
        yield Path(other)


@pytest.fixture
def order(tmp_path: Path, out: Path) -> Move:
    return order_of(tmp_path / "spool", Destination(base=out, folder=out))


def everything_in(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_all_files_of_an_output_arrive_and_the_spool_is_empty(order: Move, out: Path) -> None:
    """The report says where they are; doing it again says the same."""
    arrived = move(order, never)
    assert everything_in(out) == FILES
    assert arrived == replace(
        order.output, path=str(out / "t.zip"), manifest=str(out / "t.zip.manifest.json")
    )
    assert not order.folder.exists()
    assert list(order.marker.iterdir()) == []
    assert move(order, never) == arrived
    assert everything_in(out) == FILES


def test_permissions_stay_and_leftovers_of_the_merge_do_not_travel(order: Move, out: Path) -> None:
    """What the merge left unfinished is removed with the rest."""
    (order.folder / ".t.zip.tmp-1.data").write_bytes(b"x")
    Path(order.output.path).chmod(0o640)
    move(order, never)
    assert stat.S_IMODE((out / "t.zip").stat().st_mode) == 0o640
    assert everything_in(out) == FILES
    assert list(order.marker.iterdir()) == []


def test_folders_named_for_site_and_task_are_made(order: Move, out: Path) -> None:
    """Those above must be there: a slip in the path does not make a tree of folders."""
    deep = replace(order, destination=Destination(base=out, folder=out / "here" / "7"))
    move(deep, never)
    assert everything_in(out / "here" / "7") == FILES
    lost = replace(
        deep, marker=deep.marker.with_name("no"), destination=Destination(base=out / "no", folder=out / "no")
    )
    lost.marker.with_name("moved").rename(lost.folder)
    for name, data in FILES.items():
        (lost.folder / name).write_bytes(data)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        move(lost, never)
    assert everything_in(lost.folder) == FILES


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("other", ["other bytes", "other size", "link", "folder"])
def test_nothing_is_overwritten(order: Move, out: Path, name: str, other: str) -> None:
    """Another file at the destination is a conflict that names it; it and the spool stay."""
    path = out / name
    match other:
        case "other bytes":
            path.write_bytes(b"\1" * len(FILES[name]))
        case "other size":
            path.write_bytes(b"users own")
        case "link":
            path.symlink_to(order.folder / name)
        case _:
            path.mkdir()
    before = path.lstat()
    with pytest.raises(Conflict, match=f"{path} exists already and is another file"):
        move(order, never)
    assert path.lstat().st_ino == before.st_ino
    assert everything_in(order.folder) == FILES
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_only_what_the_merge_made_is_moved(order: Move) -> None:
    """A report that names a file elsewhere, or a folder among the files, is refused."""
    elsewhere = replace(order, output=replace(order.output, path="/etc/passwd"))
    with pytest.raises(InvalidValue, match="is not in the task's output folder"):
        move(elsewhere, never)
    (order.folder / "sub").mkdir()
    with pytest.raises(InvalidValue, match="is a folder"):
        move(order, never)
    assert not order.marker.exists()


def test_a_move_can_be_stopped(order: Move, out: Path) -> None:
    """Nothing is lost; on one file system nothing is copied that could be stopped."""
    if out.stat().st_dev != order.folder.stat().st_dev:
        with pytest.raises(GivenUp):
            move(order, lambda: True)
        assert everything_in(out) == {}
    move(order, never)
    assert everything_in(out) == FILES


STEPS = ("open", "fsync", "link", "rename", "unlink", "mkdir", "pread", "writev", "remove", "rmdir")


def dies_before(steps: int, call: Callable[[], object]) -> bool:
    """Make a call in a process that is killed before its n-th step at the disk; tell whether it was."""
    child = os.fork()
    if not child:
        left = [steps]

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*args: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return step

        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            call()
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def test_killed_before_any_step_it_is_begun_again(tmp_path: Path, out: Path) -> None:
    """A manifest at the destination tells that all is there; at the end all is, and nothing else."""
    kills = 0
    for steps in range(200):
        target = out / str(steps)
        target.mkdir()
        order = order_of(tmp_path / f"spool{steps}", Destination(base=target, folder=target))
        killed = dies_before(steps, lambda: move(order, never))  # noqa: B023
        there = everything_in(target)
        for name, data in FILES.items():
            assert there.get(name, data) == data, "a file under its own name is whole"
        if "t.zip.manifest.json" in there:
            assert there.keys() >= FILES.keys(), "the manifest comes last"
        elif not order.marker.exists():
            assert everything_in(order.folder) == FILES, "the spool keeps what has not arrived"
        move(order, never)
        assert everything_in(target) == FILES
        assert list(order.marker.iterdir()) == []
        kills += killed
        if not killed:
            break
    assert kills >= 10
    assert not killed


def test_a_full_destination_is_a_reason_to_wait(tmp_path: Path) -> None:
    """Nothing is left there, and the reason says how much is missing."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        order = order_of(tmp_path / "spool", Destination(base=small, folder=small))
        with pytest.raises(NoRoom, match=r"no room for t\.zip in .*: it has 512000 bytes, \d+ are free"):
            move(order, never)
        assert everything_in(small) == {}
        assert everything_in(order.folder) == FILES
    finally:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_a_destination_is_looked_at_when_the_task_begins(tmp_path: Path) -> None:
    """A campaign must not end at a folder that was never there."""
    spool = tmp_path / "spool"
    (spool / "x").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")

    def problem(folder: Path) -> str:
        with pytest.raises(InvalidValue) as caught:
            check_destination(Destination(base=folder, folder=folder), spool)
        assert str(folder) in str(caught.value)
        return caught.value.problem

    assert "no such folder" in problem(tmp_path / "none")
    assert "no such folder" in problem(tmp_path / "file")
    assert "inside the spool" in problem(spool / "x")
    (tmp_path / "link").symlink_to(spool)
    assert "inside the spool" in problem(tmp_path / "link")
    check_destination(Destination(base=tmp_path, folder=tmp_path), spool)
    require_free(Destination(base=tmp_path, folder=tmp_path), "t.zip")
    with pytest.raises(InvalidValue, match=r"file.*never overwritten"):
        require_free(Destination(base=tmp_path, folder=tmp_path), "file")


def test_a_destination_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    """By the edge's own account."""
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o555)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from hpcpanda_edge.staging.outward import check_destination\n"
        "from hpcpanda_edge.staging.places import Destination\n"
        "os.chdir('/')\nf = Path(sys.argv[1])\n"
        "os.geteuid() or os.setresuid(65534, 65534, 65534)\n"
        "check_destination(Destination(base=f, folder=f), Path('/none'))\n"
    )
    top = Path(tempfile.gettempdir())
    for parent in takewhile(lambda p: p != top, (tmp_path, *tmp_path.parents)):
        if parent.owner() == tmp_path.owner() and "pytest" in str(parent):
            parent.chmod(0o755)
    told = subprocess.run([sys.executable, "-c", code, folder], check=False, capture_output=True, text=True)
    assert "the edge may not write into this folder" in told.stderr


SEVERAL = {
    f"t.{n:012d}.zip{end}": data
    for n in (0, 5, 10)
    for end, data in (("", DATA), (".manifest.json", b"{}"), (".jobs.jsonl", b"%d" % n))
}


def one_of_several(order: Move, first: int) -> Move:
    """The move of one of the files that a task writes while it runs."""
    for path in order.folder.iterdir():
        path.unlink()
    for name, data in SEVERAL.items():
        (order.folder / name).write_bytes(data)
    file = order.folder / f"t.{first:012d}.zip"
    output = replace(order.output, path=str(file), manifest=f"{file}.manifest.json")
    return replace(order, output=output, one_of_several=True)


def of_first(first: int) -> dict[str, bytes]:
    return {name: data for name, data in SEVERAL.items() if name.startswith(f"t.{first:012d}.")}


def test_one_of_several_files_is_moved_alone(order: Move, out: Path) -> None:
    """With its manifest and reports; the others, and what is being written, stay. Doing it again says the same."""
    order = one_of_several(order, 5)
    (order.folder / ".t.000000000015.zip.tmp-1.data").write_bytes(b"half")
    arrived = move(order, never)
    assert everything_in(out) == of_first(5)
    assert everything_in(order.folder) == {
        ".t.000000000015.zip.tmp-1.data": b"half", **of_first(0), **of_first(10)
    }  # fmt: skip
    assert arrived.path == str(out / "t.000000000005.zip")
    assert move(order, never) == arrived
    assert everything_in(out) == of_first(5)


@pytest.mark.parametrize("removed", range(4))
def test_one_of_several_files_that_was_partly_removed_has_been_moved(
    order: Move, out: Path, removed: int
) -> None:
    """Killed while it took away what had arrived, the manifest first: the rest is taken away, nothing comes twice."""
    order = one_of_several(order, 5)
    names = ["t.000000000005.zip.manifest.json", "t.000000000005.zip", "t.000000000005.zip.jobs.jsonl"]
    for name in names:
        (out / name).write_bytes(SEVERAL[name])
    for name in names[:removed]:
        (order.folder / name).unlink()
    move(order, never)
    assert everything_in(out) == of_first(5)
    assert everything_in(order.folder) == {**of_first(0), **of_first(10)}


def test_another_file_in_the_way_of_one_of_several_is_a_conflict(order: Move, out: Path) -> None:
    """Nothing is overwritten, and the spool keeps it."""
    order = one_of_several(order, 5)
    (out / "t.000000000005.zip").write_bytes(b"users own")
    with pytest.raises(Conflict, match="exists already and is another file"):
        move(order, never)
    assert everything_in(order.folder) == SEVERAL
