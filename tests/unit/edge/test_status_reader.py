"""Reading the heads' status files."""

from __future__ import annotations

import time
from pathlib import Path

from hpcpanda_edge.files import StatusReader

from hpcpanda.allocation.plan import AllocationStatus
from hpcpanda.allocation.spool import STATUS, Spool, write_message


def test_a_status_that_cannot_be_understood_is_told_until_it_can(tmp_path: Path) -> None:
    """Foreign bytes, or a field of another version, are a trouble of that allocation alone; a good status ends it."""
    spool = Spool(tmp_path)
    good = AllocationStatus(
        allocation_id="a", state="running", head_pid=1, host="h", written=time.time(), inbox_read=0, packs=()
    )
    for name in ("a", "b"):
        spool.allocation(name).create()
        write_message(spool.allocation(name).status, STATUS, good)
    bad = spool.allocation("b").status
    bad.write_bytes(b'{"allocation_id":"b","mood":"good"}')
    reader = StatusReader(spool)
    assert [s.allocation_id for s in reader.read(["a", "b", "none"])] == ["a"]
    assert list(reader.troubles) == ["b"]
    assert "mood" in reader.troubles["b"]
    assert reader.read(["a", "b"]) == []
    write_message(bad, STATUS, good)
    assert len(reader.read(["a", "b"])) == 1
    assert reader.troubles == {}
