"""A recorder makes ranges done in groups, and tells when the disk refuses."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.events.columns import BYTES, Column, Schema
from hpcpanda.events.journal import (
    ENTRY,
    Entries,
    FailedInEpoch,
    JournalHeader,
    events_of,
    read_journal,
    recover_journal,
    segment_path,
)
from hpcpanda.events.recorder import Recorded, Recorder

HEADER = JournalHeader(
    task_id=7, allocation_id="a-1", pack_id="p-1", incarnation=2, rank=3, host="n1", cores=4, started=1.5
)


def entry(first: int, last: int, data: bytes) -> Entries:
    """One range's entry."""
    new = np.zeros(1, dtype=ENTRY)
    new["epoch"], new["first"], new["last"] = 5, first, last
    new["length"], new["crc"] = len(data), zlib.crc32(data)
    return new


def recorder(
    path: Path,
    *,
    roll_bytes: int = 1 << 30,
    sync_s: float = 0.01,
    on_durable: Callable[[list[Recorded]], None] = lambda _: None,
) -> Recorder:
    """A recorder that syncs quickly."""
    new = Recorder(path, HEADER, roll_bytes=roll_bytes, sync_s=sync_s, on_durable=on_durable)
    new.fix_schema(BYTES)
    return new


def contents(journal: Path) -> list[tuple[int, bytes]]:
    """First event and bytes of each entry; checksums are tested."""
    found = []
    for e in read_journal(journal).entries:
        with segment_path(journal, int(e["segment"])).open("rb") as file:
            file.seek(int(e["offset"]))
            data = file.read(int(e["length"]))
        assert zlib.crc32(data) == e["crc"]
        found.append((int(e["first"]), data))
    return found


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    """Header, columns, ranges, failed events and the orderly end are in the journal, the bytes in the segment."""
    journal = tmp_path / "n.journal"
    r = recorder(journal)
    r.record(entry(0, 3, b"abc"), [b"a", b"bc"])
    r.record(entry(3, 4, b""), [b""])
    lost = FailedInEpoch(epoch=5, events=(FailedEvent(event=9, error="boom"),))
    r.set_aside(lost)
    r.close()
    part = read_journal(journal, durable_only=True)
    assert (part.header, part.schema, part.closed, part.failed) == (HEADER, BYTES, True, (lost,))
    assert contents(journal) == [(0, b"abc"), (3, b"")]
    assert part.next_offset == journal.stat().st_size
    assert events_of(recover_journal(journal).entries).bounds == (0, 4)


def test_segments_roll_before_they_are_too_large(tmp_path: Path) -> None:
    """A segment that would pass the limit is followed by a new one; a range is never split, a large one is alone."""
    journal = tmp_path / "n.journal"
    r = recorder(journal, roll_bytes=10)
    for k, size in enumerate((4, 4, 4, 25, 1)):
        data = bytes([k]) * size
        r.record(entry(k, k + 1, data), [data])
    r.close()
    assert [data for _, data in contents(journal)] == [bytes([k]) * n for k, n in enumerate((4, 4, 4, 25, 1))]
    assert [segment_path(journal, k).stat().st_size for k in range(4)] == [8, 4, 25, 1]
    assert read_journal(journal).entries["segment"].tolist() == [0, 0, 1, 2, 3]


def test_ranges_become_done_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges recorded within the sync interval share one sync, and are told only when they are on the disk."""
    told: list[int] = []
    first = threading.Event()
    syncs: list[int] = []
    real = os.fdatasync

    def on_durable(group: list[Recorded]) -> None:
        durable = len(read_journal(tmp_path / "n.journal", durable_only=True).entries)
        told.append(sum(len(g) for g in group if not isinstance(g, FailedInEpoch)))
        assert durable == sum(told)
        first.set()

    def counted(fd: int) -> None:
        syncs.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", counted)
    r = recorder(tmp_path / "n.journal", sync_s=0.3, on_durable=on_durable)
    for k in range(50):
        r.record(entry(k, k + 1, b"x"), [b"x"])
    assert not told
    assert first.wait(60)
    r.record(entry(50, 51, b"x"), [b"x"])
    r.close()
    assert told == [50, 1]
    assert len(syncs) == 4  # a segment and a journal sync for each group


def test_many_ranges_in_one_record_share_offsets(tmp_path: Path) -> None:
    """Entries recorded together keep their relative offsets."""
    journal = tmp_path / "n.journal"
    r = recorder(journal)
    r.record(entry(0, 1, b"head"), [b"head"])
    two = np.concatenate((entry(1, 2, b"ab"), entry(2, 3, b"cde")))
    two["offset"] = [0, 2]
    r.record(two, [b"abcde"])
    r.close()
    assert contents(journal) == [(0, b"head"), (1, b"ab"), (2, b"cde")]


def test_new_segment_files_are_durable_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is synced after a segment file was made and before its ranges are told to be done."""
    story: list[str] = []
    real = os.fsync

    def watched(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            story.append("folder")
        real(fd)

    monkeypatch.setattr(os, "fsync", watched)
    r = recorder(tmp_path / "n.journal", on_durable=lambda _: story.append("done"))
    r.record(entry(0, 1, b"x"), [b"x"])
    r.close()
    assert story == ["folder", "folder", "done"]


def test_other_columns_are_refused(tmp_path: Path) -> None:
    """The columns of a journal are fixed by the first range; others are refused by name."""
    r = Recorder(tmp_path / "n.journal", HEADER, roll_bytes=100, sync_s=0.01, on_durable=lambda _: None)
    ours = Schema(columns=(Column(name="x", dtype="<f8"),))
    r.fix_schema(ours)
    r.fix_schema(ours)
    with pytest.raises(InvalidValue, match="'x' is <f8 in one range and <f4 in another"):
        r.fix_schema(Schema(columns=(Column(name="x", dtype="<f4"),)))
    assert r.schema == ours
    r.close()


def test_a_journal_is_never_overwritten(tmp_path: Path) -> None:
    """A second recorder with the same journal is refused."""
    recorder(tmp_path / "n.journal").close()
    with pytest.raises(FileExistsError):
        recorder(tmp_path / "n.journal")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_ends_the_recorder_and_keeps_what_was_done(small_disk: Path) -> None:
    """When the disk is full the next call says so, and every range that was told to be done is readable."""
    journal = small_disk / "n.journal"
    told: list[int] = []
    r = recorder(journal, on_durable=lambda group: told.append(len(group)))
    data = bytes(20_000)

    def until_full() -> None:
        for k in range(1000):
            r.record(entry(k, k + 1, data), [data])
            time.sleep(0.005)

    with pytest.raises(OSError, match="No space left"):
        until_full()
    assert r.error is not None
    with pytest.raises(OSError, match="No space left"):
        r.record(entry(5000, 5001, b""), [b""])
    with pytest.raises(OSError, match="No space left"):
        r.close()
    durable = read_journal(journal, durable_only=True).entries
    assert len(durable) >= sum(told) > 0
    assert all(crc == zlib.crc32(data) for crc in durable["crc"].tolist())
    assert len(contents(journal)) >= len(durable)


def test_a_file_size_limit_is_an_error_not_a_wrong_entry(tmp_path: Path) -> None:
    """A short write at a quota or size limit never becomes an entry whose bytes are not all there."""
    script = """
        import resource, signal, sys, zlib, numpy as np
        from pathlib import Path
        from hpcpanda.events.columns import BYTES
        from hpcpanda.events.journal import ENTRY, JournalHeader
        from hpcpanda.events.recorder import Recorder
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        h = JournalHeader(task_id=1, allocation_id="a", pack_id="p", incarnation=0, rank=0, host="h", cores=1, started=0.)
        r = Recorder(Path(sys.argv[1]), h, roll_bytes=1 << 30, sync_s=0.0, on_durable=lambda g: None)
        r.fix_schema(BYTES)
        data = b"z" * 7000
        try:
            for k in range(100):
                e = np.zeros(1, dtype=ENTRY)
                e["first"], e["last"], e["length"], e["crc"] = k, k + 1, len(data), zlib.crc32(data)
                r.record(e, [data])
        except OSError:
            pass
        try:
            r.close()
        except OSError:
            sys.exit(3)
    """
    journal = tmp_path / "n.journal"
    ended = subprocess.run([sys.executable, "-c", textwrap.dedent(script), journal], check=False)
    assert ended.returncode == 3
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50_000
    assert all(data == b"z" * 7000 for _, data in contents(journal))
    assert not read_journal(journal).closed
