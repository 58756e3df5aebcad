"""ZIP outputs are read by other programs."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hpcpanda.domain.outputs import OutputFormat
from hpcpanda.merge import merge
from hpcpanda.merge.archive import member_names


def test_members_are_ranges_in_event_order(spool: Any, tmp_path: Path) -> None:
    """Names are first and last event, contents and checksums right, dates fixed, empty members kept."""
    lines = lambda f, e: b"" if f == 3 else b"%d-%d" % (f, e)  # noqa: E731
    source = spool.node("a", [(100, 250), (0, 3), (3, 100)], lines)
    merge(sources=[source], format=OutputFormat.ZIP, output=tmp_path / "o.zip", provenance={})
    with zipfile.ZipFile(tmp_path / "o.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "events-000000000000-000000000002",
            "events-000000000003-000000000099",
            "events-000000000100-000000000249",
        ]
        assert [archive.read(n) for n in archive.namelist()] == [b"0-3", b"", b"100-250"]
        assert {i.date_time for i in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {i.compress_type for i in archive.infolist()} == {zipfile.ZIP_STORED}


def test_more_members_than_the_old_format_allows(spool: Any, tmp_path: Path) -> None:
    """70 000 members are found again."""
    source = spool.node("a", [(k, k + 1) for k in range(70_000)], lambda f, _: b"%d" % f)
    merge(sources=[source], format=OutputFormat.ZIP, output=tmp_path / "o.zip", provenance={})
    with zipfile.ZipFile(tmp_path / "o.zip") as archive:
        assert len(archive.namelist()) == 70_000
        assert archive.read("events-000000069999-000000069999") == b"69999"


def test_names_grow_with_large_event_numbers() -> None:
    """All names of an archive have the width that the largest event needs."""
    names = member_names(np.array([5, 10**14]), np.array([10**14, 10**14 + 7]))
    assert [n.tobytes() for n in names] == [
        b"events-000000000000005-099999999999999",
        b"events-100000000000000-100000000000006",
    ]
