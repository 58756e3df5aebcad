"""Copies of inputs: whole or absent, tested, and every trouble told with the file's name. Real files."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hpcpanda_edge.staging import copying
from hpcpanda_edge.staging.copying import GivenUp, NoRoom, copy_file, is_full, new_digest
from hpcpanda_edge.staging.inward import Fetch, Room, fetch, look, remove
from hpcpanda_edge.staging.places import Source

from hpcpanda.domain.errors import CorruptData, InvalidValue, Unavailable
from hpcpanda.domain.intervals import EMPTY, EventRange, IntervalSet

DATA = bytes(range(256)) * 20_000 + b"end"


def never() -> bool:
    return False


def after(pieces: int, do: Callable[[], object]) -> Callable[[], bool]:
    """Asked between pieces: do something before the n-th piece is copied."""
    asked = [0]

    def stopped() -> bool:
        asked[0] += 1
        if asked[0] == pieces:
            do()
        return False

    return stopped


@pytest.fixture
def order(tmp_path: Path) -> Fetch:
    original = tmp_path / "from" / "x.root"
    original.parent.mkdir()
    original.write_bytes(DATA)
    folder = tmp_path / "spool" / "input"
    folder.parent.mkdir()
    return Fetch(original=original, copy=folder / "0" / "x.root", unfinished=folder / ".part-0-0")


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path, 0)


def nothing_is_left(order: Fetch) -> bool:
    return not order.copy.exists() and not order.unfinished.exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two mebibytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_copy_is_the_same_and_only_for_the_edge(order: Fetch, room: Room) -> None:
    """Nobody may write it, nor read what the original did not let him read."""
    order.original.chmod(0o640)
    origin = fetch(order, room, never)
    assert order.copy.read_bytes() == DATA
    assert origin.size == len(DATA)
    assert stat.S_IMODE(order.copy.stat().st_mode) == 0o400
    assert stat.S_IMODE(order.copy.parent.stat().st_mode) == 0o700
    assert not order.unfinished.exists()


@pytest.mark.parametrize(
    "checksum", [f"adler32:{zlib.adler32(DATA):08X}", "sha256:" + hashlib.sha256(DATA).hexdigest()]
)
def test_checksums_are_tested(order: Fetch, room: Room, checksum: str) -> None:
    """In the form that the task gives; a wrong one leaves nothing."""
    fetch(replace(order, checksum=checksum, size=len(DATA)), room, never)
    assert order.copy.read_bytes() == DATA
    order.copy.unlink()
    order.original.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(CorruptData, match=r"x\.root has the checksum .*, not"):
        fetch(replace(order, checksum=checksum), room, never)
    assert nothing_is_left(order)


def test_a_wrong_size_is_told_before_anything_is_copied(order: Fetch, room: Room) -> None:
    """With both numbers."""
    with pytest.raises(CorruptData, match=f"x.root has {len(DATA)} bytes, not 5"):
        fetch(replace(order, size=5), room, never)
    assert not order.copy.parent.exists()


def test_links_are_followed(order: Fetch, room: Room, tmp_path: Path) -> None:
    """The copy is a file of its own."""
    link = tmp_path / "link"
    link.symlink_to(order.original)
    fetch(replace(order, original=link), room, never)
    assert not order.copy.is_symlink()
    assert order.copy.read_bytes() == DATA


def make_socket(path: Path) -> None:
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as made:
        made.bind(f"{short}/s")
        Path(short, "s").rename(path)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Path.mkdir, "a folder"),
        (os.mkfifo, "a pipe"),
        (lambda p: p.symlink_to("/dev/zero"), "a device"),
        (make_socket, "a socket"),
    ],
)
def test_only_plain_files_are_copied(
    order: Fetch, room: Room, make: Callable[[Path], None], kind: str
) -> None:
    """A pipe does not hang the edge, a device does not fill its disk."""
    order.original.unlink()
    make(order.original)
    with pytest.raises(InvalidValue, match=f"{order.original}: is {kind}"):
        fetch(order, room, never)
    assert nothing_is_left(order)


def test_a_file_that_is_not_there_is_named(order: Fetch, room: Room) -> None:
    """Purged, perhaps; or its file system is not mounted."""
    order.original.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        fetch(order, room, never)
    assert caught.value.filename == str(order.original)


def test_a_file_that_may_not_be_read_is_named(order: Fetch, room: Room) -> None:
    """By the edge's own account."""
    order.original.chmod(0)
    spool = order.copy.parents[2]
    spool.chmod(0o777)
    for parent in (order.original.parent, *order.original.parents):
        if parent.stat().st_uid == os.geteuid() and parent.is_relative_to(spool.parent.parent.parent):
            parent.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(PermissionError, match=r"x\.root"):
            fetch(order, room, never)
    finally:
        if root:
            os.seteuid(0)
    assert nothing_is_left(order)


def test_an_error_in_the_middle_of_reading_is_told(order: Fetch, room: Room) -> None:
    """Whatever the kernel says: here a file that pretends to have a page, and cannot be read."""
    broken = Path("/sys/class/net/lo/duplex")
    if not broken.exists() or not broken.stat().st_size:
        pytest.skip("there is no unreadable file here")
    with pytest.raises(OSError, match=f"{broken} cannot be copied to .*: Invalid argument"):
        fetch(replace(order, original=broken), room, never)
    assert nothing_is_left(order)


@pytest.mark.parametrize("change", ["longer", "shorter", "other bytes"])
@pytest.mark.parametrize("in_kernel", [True, False])
def test_a_file_that_changes_meanwhile_is_not_taken(
    order: Fetch, room: Room, change: str, in_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is half old and half new must never be read."""
    monkeypatch.setattr(copying, "_IN_KERNEL", 2**20)
    monkeypatch.setattr(copying, "_PIECE", 2**20)

    def do() -> None:
        os.utime(order.original, ns=(0, 5))
        with order.original.open("r+b") as file:
            if change == "shorter":
                file.truncate(2**20)
            else:
                file.seek(0, os.SEEK_END if change == "longer" else os.SEEK_SET)
                file.write(b"new")

    if in_kernel:
        with pytest.raises(Unavailable, match=r"x\.root was changed while it was copied"):
            fetch(order, room, after(2, do))
        assert nothing_is_left(order)
    else:
        with pytest.raises(Unavailable, match=r"x\.root was changed while it was copied"):
            copy_file(
                order.original,
                order.original.with_name("copy"),
                mode=0o400,
                stopped=after(2, do),
                digest=new_digest("sha256"),
            )


def test_a_copy_can_be_stopped(order: Fetch, room: Room) -> None:
    """Between pieces; nothing is left."""
    with pytest.raises(GivenUp):
        fetch(order, room, lambda: True)
    assert nothing_is_left(order)


def test_what_an_earlier_edge_left_is_in_nobodys_way(order: Fetch, room: Room) -> None:
    """An unfinished copy is begun again."""
    order.unfinished.parent.mkdir(parents=True)
    order.unfinished.write_bytes(b"half")
    order.unfinished.chmod(0o400)
    fetch(order, room, never)
    assert order.copy.read_bytes() == DATA


def test_between_file_systems_bytes_are_copied(order: Fetch, room: Room) -> None:
    """Where the kernel cannot do it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if Path(other).stat().st_dev == order.original.stat().st_dev:
            pytest.skip("there is only one file system here")
        original = Path(other) / "y"
        original.write_bytes(DATA)
        fetch(replace(order, original=original), room, never)
    assert order.copy.read_bytes() == DATA


def test_the_same_file_for_another_task_is_not_copied_again(order: Fetch, room: Room) -> None:
    """As long as the original is what it was; else it is copied anew and the first task keeps its own."""
    origin = fetch(order, room, never)
    second = replace(
        order,
        copy=order.copy.parents[1] / "other" / "x.root",
        unfinished=order.unfinished.with_name(".part-other"),
        twins=((order.copy, origin),),
    )
    fetch(second, room, never)
    assert second.copy.samefile(order.copy)
    second.copy.unlink()
    order.original.write_bytes(b"new")
    fetch(second, room, never)
    assert second.copy.read_bytes() == b"new"
    assert order.copy.read_bytes() == DATA
    gone = replace(second, twins=((order.copy.with_name("gone"), fetch(second, room, never)),))
    fetch(gone, room, never)
    assert gone.copy.read_bytes() == b"new"


def test_a_reserve_stays_free(order: Fetch, tmp_path: Path) -> None:
    """More than there is; the reason says what is missing."""
    disk = os.statvfs(tmp_path)
    everything = Room(tmp_path, disk.f_bavail * disk.f_frsize)
    with pytest.raises(NoRoom, match=r"no room for .*x\.root in .*: it has 5\.12 MB, .* free, .* in reserve"):
        fetch(order, everything, never)
    assert nothing_is_left(order)


def test_copies_under_way_count(small_disk: Path, order: Fetch) -> None:
    """Two copies do not both count on the same room; when one is over the room is free again."""
    room = Room(small_disk, 0)
    with room.take(order.original, 2**20 + 1, Path("/a")):
        with pytest.raises(NoRoom), room.take(order.original, 2**20, Path("/b")):
            pass
        with room.take(order.original, 2**19, Path("/b")):
            pass
    with room.take(order.original, 2**20, Path("/b")):
        pass


def test_a_disk_that_fills_in_the_middle_is_a_reason_to_wait(small_disk: Path, order: Fetch) -> None:
    """Others write there too: nothing is left of the copy, and it is told as want of room."""
    tight = replace(order, copy=small_disk / "input/0/x", unfinished=small_disk / "input/.part-0-0")
    with pytest.raises(OSError, match="No space left on device") as caught:
        fetch(tight, Room(order.original.parent, 0), never)
    assert is_full(caught.value)
    assert str(order.original) in str(caught.value)
    assert nothing_is_left(tight)
    assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize > 1.9e6


SOURCES = (
    Source(number=0, path="/d/{job}/x", cover=EventRange(0, 100)),
    Source(number=1, path="/d/common", cover=EventRange(0, 100)),
)


def test_finished_copies_are_found_again(tmp_path: Path) -> None:
    """By their names; unfinished ones and strangers are not copies."""
    folder = tmp_path / "input"
    assert look(folder, SOURCES) == {0: EMPTY, 1: EMPTY}
    for job in (3, 4, 50):
        copy = SOURCES[0].copy(folder, job)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(b"")
    SOURCES[0].copy(folder, 50).rename(folder / "0" / "50" / "stranger")
    (folder / "0" / "x7").mkdir()
    (folder / ".part-0-9").write_bytes(b"")
    assert look(folder, SOURCES) == {0: IntervalSet.span(3, 5), 1: EMPTY}
    assert not (folder / ".part-0-9").exists()
    SOURCES[1].copy(folder, 0).parent.mkdir()
    SOURCES[1].copy(folder, 0).write_bytes(b"")
    assert look(folder, SOURCES)[1] == IntervalSet.span(0, 100)


def test_copies_are_removed_with_their_folders(tmp_path: Path) -> None:
    """Only those named; one that is gone already is no trouble."""
    folder = tmp_path / "input"
    for job in (3, 4):
        SOURCES[0].copy(folder, job).parent.mkdir(parents=True)
        SOURCES[0].copy(folder, job).write_bytes(b"")
    remove(folder, SOURCES[0], IntervalSet.span(4, 6), never)
    assert look(folder, SOURCES)[0] == IntervalSet.span(3, 4)
    assert [p.name for p in (folder / "0").iterdir()] == ["3"]
    remove(folder, SOURCES[1], IntervalSet.span(0, 100), never)
