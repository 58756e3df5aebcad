"""Whatever is in a file, a trace that keeps its promises comes out, or an error of the product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.simulate.reading.choose import read_trace
from hpcpanda.simulate.reading.formats import TraceFormat
from hpcpanda.simulate.trace import HostTrace

HEADS = {
    TraceFormat.SWF: "; MaxNodes: 40\n",
    TraceFormat.ALCF: "job,node_num,submit_time,wait_time,run_time,wall_time\n",
    TraceFormat.SLURM: "JobID|Submit|Start|End|Elapsed|Timelimit|AllocNodes|NNodes|State\n",
    TraceFormat.PBS: "",
}
numbers = st.integers(-2, 10**10) | st.sampled_from([0, 1, -1, 1_700_000_000, 10**30]) | st.floats(0, 1e9)
words = numbers.map(str) | st.sampled_from(
    ["", "-", "nan", "inf", "1-00:00", "{1,2}", "1K", "K", "\0", "é", "1e400"]
)
values = st.integers(0, 50).map(str) | words


def line(known: TraceFormat, cells: list[str]) -> str:
    match known:
        case TraceFormat.SWF:
            return " ".join(cells)
        case TraceFormat.ALCF:
            return ",".join(cells)
        case TraceFormat.SLURM:
            return "|".join(cells)
        case TraceFormat.PBS:
            names = ("qtime", "start", "end", "exec_host", "Resource_List.nodect", "Resource_List.walltime")
            return f"01/01/2026 00:00:00;E;{cells[0]};" + " ".join(
                f"{n}={c}" for n, c in zip(names, cells[1:], strict=False)
            )


def require_sound(trace: HostTrace) -> None:
    """What is promised of a trace."""
    assert len(trace) > 0
    assert trace.submit[0] == 0
    assert (np.diff(trace.submit) >= 0).all()
    assert np.isfinite(trace.run).all()
    assert (trace.run > 0).all()
    assert (trace.requested >= trace.run).all()
    assert np.isfinite(trace.requested).all()
    assert ((trace.nodes >= 1) & (trace.nodes <= trace.machine_nodes)).all()
    assert not (trace.start < trace.submit).any()
    assert all(flaw.count > 0 and flaw.first_line > 0 for flaw in trace.flaws)


@pytest.mark.parametrize("known", TraceFormat)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(values, min_size=1, max_size=20), max_size=12), st.none() | st.integers(1, 100))
def test_any_cells(tmp_path: Path, known: TraceFormat, table: list[list[str]], nodes: int | None) -> None:
    """Lines of the right look with anything in them."""
    path = tmp_path / "trace"
    path.write_text(HEADS[known] + "\n".join(line(known, cells) for cells in table))
    try:
        trace = read_trace(path, nodes=nodes, format=known)
    except HpcPandaError:
        return
    require_sound(trace)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300),
    st.none() | st.sampled_from(TraceFormat),
    st.sampled_from([b"", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\0", *(h.encode() for h in HEADS.values())]),
)
def test_any_bytes(tmp_path: Path, content: bytes, known: TraceFormat | None, head: bytes) -> None:
    """Noise, also behind the first bytes of packed files and behind headers."""
    path = tmp_path / "trace"
    path.write_bytes(head + content)
    try:
        trace = read_trace(path, format=known)
    except HpcPandaError:
        return
    require_sound(trace)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(1, 300), st.none() | st.integers(0, 400)), min_size=1, max_size=30),
    st.integers(0, 600),
    st.integers(1, 400),
)  # fmt: skip
def test_any_part(jobs: list[tuple[int, int, int | None]], begin: int, length: int) -> None:
    """A period of a sound trace is sound, holds no more node-time than the whole, and none of before its begin."""
    jobs = sorted(jobs, key=lambda job: job[0])
    submit = np.array([float(s) for s, *_ in jobs])
    submit -= submit[0]
    run = np.array([float(r) for _, r, _ in jobs])
    wait = np.array([np.nan if w is None else float(w) for *_, w in jobs])
    whole = HostTrace(
        submit=submit, start=submit + wait, run=run, requested=run + 10, nodes=np.ones(len(jobs), dtype=np.int64),
        machine_nodes=30, epoch=0.0, source="made",
    )  # fmt: skip
    try:
        part = whole.period(begin, begin + length)
    except HpcPandaError:
        assert not ((submit >= begin) & (submit < begin + length)).any()
        return
    require_sound(part)
    assert part.run.sum() <= run.sum()
    assert len(part) >= ((submit >= begin) & (submit < begin + length)).sum()
