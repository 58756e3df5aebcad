"""Trace files from outside are hostile, and parts of a trace are cut honestly."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue, TooLarge
from hpcpanda.simulate.reading import lines as reading_lines
from hpcpanda.simulate.reading import node_lists
from hpcpanda.simulate.reading import rows as reading_rows
from hpcpanda.simulate.reading.choose import read_trace
from hpcpanda.simulate.reading.formats import TraceFormat
from hpcpanda.simulate.reading.lines import OVERLONG, read_lines
from hpcpanda.simulate.trace import HostTrace

ROOT = Path(__file__).parents[3]
TRACES = ROOT.parent / "shared" / "traces"
GOOD = "0 0 0 10 1 -1 -1 1 20 -1 1 3 4 -1 1 -1 -1 -1\n1 5 0 10 1 -1 -1 1 20 -1 1 3 4 -1 1 -1 -1 -1\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trace.dat"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_packed_files_are_known_by_their_content(path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Whatever their name; files of several members, as logs are that were packed apart, are read whole."""
    path.write_bytes(pack(GOOD[: len(GOOD) // 2].encode()) + pack(GOOD[len(GOOD) // 2 :].encode()))
    assert len(read_trace(path, nodes=4)) == 2


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_damaged_files_are_refused(path: Path, pack: Callable[[bytes], bytes]) -> None:
    """One that ends early, and one with a byte turned; never a part of a trace taken for the whole."""
    whole = pack(("".join(f"{i} {GOOD}" for i in range(2000))).encode())
    turned = bytearray(whole)
    turned[len(whole) // 2] ^= 0xFF
    for content in (whole[: len(whole) // 2], bytes(turned), whole[:8]):
        path.write_bytes(content)
        with pytest.raises(InvalidValue, match="damaged"):
            read_trace(path, format=TraceFormat.SWF)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x28\xb5\x2f\xfd....", "packed with zstd"),
        (b"PK\x03\x04....", "packed with zip"),
        (GOOD.encode("utf-16"), "UTF-16"),
    ],
)
def test_other_files_are_named(path: Path, content: bytes, problem: str) -> None:
    """What cannot be read says what it is."""
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=problem):
        read_trace(path)


def test_no_file_at_all(path: Path, tmp_path: Path) -> None:
    """A missing file and a folder are errors of the product."""
    for wrong in (path, tmp_path):
        with pytest.raises(InvalidValue, match=str(wrong)):
            read_trace(wrong)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_not_unpacked(
    path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading ends soon after more came out than a text of jobs can have, whatever is inside."""
    monkeypatch.setattr(reading_lines, "_HARMLESS", 2**20)
    path.write_bytes(pack(b"0" * 2**24))
    with pytest.raises(TooLarge, match="300 times"):
        read_trace(path)


def test_a_file_is_read_to_a_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a plain one, which may grow while it is read; and jobs and lists of nodes are counted."""
    path.write_text(GOOD * 100)
    with monkeypatch.context() as patch:
        patch.setattr(reading_lines, "MAX_BYTES", 1000)
        with pytest.raises(TooLarge, match="cut it into parts"):
            read_trace(path)
    with monkeypatch.context() as patch:
        patch.setattr(reading_rows, "MAX_JOBS", 50)
        with pytest.raises(TooLarge, match="line 51"):
            read_trace(path)
    path.write_text("".join(f"{line} {{1,2,3}}\n" for line in GOOD.splitlines()))
    monkeypatch.setattr(node_lists, "MAX_ENTRIES", 4)
    with pytest.raises(TooLarge, match=r"line 2: .*lists of nodes"):
        read_trace(path)


def test_endless_lines_are_not_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line longer than the limit becomes one unparsable line; what is behind it is read, with its true number."""
    monkeypatch.setattr(reading_lines, "MAX_LINE", 100)
    monkeypatch.setattr(reading_lines, "_BLOCK", 64)
    path.write_text("a" * 5000 + "\n" + "b" * 101 + "\nshort\n" + "c" * 100 + "\n" + "d" * 500)
    assert list(read_lines(path)) == [
        (1, OVERLONG),
        (2, OVERLONG),
        (3, "short"),
        (4, "c" * 100),
        (5, OVERLONG),
    ]


@pytest.mark.parametrize("block", [1, 2, 7, 64])
def test_blocks_do_not_show(path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Lines are whole wherever the blocks that are read end; empty lines count; the last may lack its end."""
    monkeypatch.setattr(reading_lines, "_BLOCK", block)
    path.write_text("one\n\nthree\nfour")
    assert list(read_lines(path)) == [(1, "one"), (2, ""), (3, "three"), (4, "four")]


@pytest.mark.parametrize(
    "noise",
    [b"\0\0\0\n", b"\xff\xfe\xfa\n", b"; caf\xe9 \xf0\x9f\n", b"\x85\x1c\x0b\n", b'"unclosed\n', b"\r\n"],
)
@pytest.mark.parametrize("known", TraceFormat)
def test_noise_between_jobs_is_left_out(path: Path, noise: bytes, known: TraceFormat) -> None:
    """NULs, bytes that are no UTF-8 and control characters cost a line, not the trace."""
    lines = {
        TraceFormat.SWF: GOOD,
        TraceFormat.ALCF: "job,node_num,submit_time,wait_time,run_time,wall_time\n1,1,5,0,10,20\n2,1,6,0,10,20\n",
        TraceFormat.SLURM: "JobID|Submit|Start|Elapsed|NNodes\n1|5|5|00:10|1\n2|6|6|00:10|1\n",
        TraceFormat.PBS: "".join(
            f"01/01/2026 00:00:00;E;{i};qtime={i} start={i} end=99 Resource_List.nodect=1\n" for i in (5, 6)
        ),
    }[known]
    head, rest = lines.rsplit("\n", 2)[0], lines.rsplit("\n", 2)[1]
    path.write_bytes(b"\xef\xbb\xbf" + head.encode() + b"\r\n" + noise + rest.encode() + b"\n")
    trace = read_trace(path, nodes=4)
    assert len(trace) == 2
    assert {f.kind: f.count for f in trace.flaws}.get("unparsable", 0) <= 1


@pytest.mark.parametrize(("nodes", "cores"), [(0, None), (-5, None), (None, 0), (2**40, None)])
def test_sizes_are_checked(path: Path, nodes: int | None, cores: int | None) -> None:
    """A machine has nodes, and a node cores."""
    path.write_text(GOOD)
    with pytest.raises(InvalidValue, match=r"nodes|cores_per_node"):
        read_trace(path, nodes=nodes, cores_per_node=cores)


def test_cores_are_for_traces_of_processors(path: Path) -> None:
    """An option without effect is refused."""
    path.write_text("job,node_num,submit_time,wait_time,run_time,wall_time\n1,1,5,0,10,20\n")
    with pytest.raises(InvalidValue, match="cores_per_node: is for traces that count processors"):
        read_trace(path, cores_per_node=4)


# ---- parts of a trace ----

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def trace(**changed: object) -> HostTrace:
    fields: dict[str, object] = {
        "submit": np.array([0.0, 10.0, 20.0, 200.0, 400.0]),
        "start": np.array([0.0, 150.0, 20.0, np.nan, 400.0]),
        "run": np.array([120.0, 30.0, 50.0, 10.0, 5.0]),
        "requested": np.array([300.0, 60.0, 60.0, 20.0, 9.0]),
        "nodes": np.array([1, 2, 3, 4, 5]),
        "machine_nodes": 8,
        "epoch": NEW_YEAR - 100,
        "source": "made",
    }
    return HostTrace(**{**fields, **changed})  # type: ignore[arg-type]


def test_a_period_begins_with_what_ran_and_what_waited() -> None:
    """The rest of the running job, the waiting one, and those submitted in time; what had ended is not in it."""
    part = trace().period(100, 300)
    np.testing.assert_array_equal(part.nodes, [1, 2, 4])
    np.testing.assert_array_equal(part.submit, [0, 0, 100])
    np.testing.assert_array_equal(part.start, [0, 50, np.nan])
    np.testing.assert_array_equal(part.run, [20, 30, 10])
    np.testing.assert_array_equal(part.requested, [200, 60, 20])
    assert part.epoch == NEW_YEAR
    assert part.machine_nodes == 8


def test_a_period_may_begin_later_than_told() -> None:
    """Times count from its first submission."""
    part = trace().period(190, 500)
    np.testing.assert_array_equal(part.submit, [0, 200])
    assert part.epoch == NEW_YEAR + 100


def test_a_year_is_cut_by_its_dates() -> None:
    """Before the new year and after it."""
    np.testing.assert_array_equal(trace().year(2025).nodes, [1, 2, 3])
    np.testing.assert_array_equal(trace().year(2026).nodes, [1, 2, 4, 5])


@pytest.mark.parametrize(
    ("cut", "problem"),
    [
        (lambda: trace().period(500, 600), "no job"),
        (lambda: trace().year(2024), "submitted in 2025..2026"),
        (lambda: trace(epoch=0.0).year(2026), "no dates"),
    ],
)
def test_an_empty_part_is_refused(cut: Callable[[], HostTrace], problem: str) -> None:
    """It says what there is."""
    with pytest.raises(InvalidValue, match=problem):
        cut()


# ---- traces of real machines ----


@pytest.mark.skipif(not TRACES.is_dir(), reason="the traces for development are not here")
def test_theta() -> None:
    """The machine's published size comes out of the starts and ends of its jobs alone."""
    found = read_trace(TRACES / "theta-2023.csv.gz")
    assert (len(found), found.machine_nodes) == (14_374, 4392)
    assert found.days == pytest.approx(124.8, abs=0.05)
    assert {f.kind for f in found.flaws} == {"overrun", "out-of-order", "waited-before", "machine-size"}
    assert len(found.year(2023)) <= len(found)


@pytest.mark.skipif(not TRACES.is_dir(), reason="the traces for development are not here")
def test_wagap() -> None:
    """Lists of nodes are used, and it is told that nodes were shared."""
    found = read_trace(TRACES / "wagap-2013.swf.gz")
    assert len(found) == 17_898
    assert {f.kind: f.count for f in found.flaws}["shared-nodes"] == 16_774
    assert found.nodes.max() <= 44
