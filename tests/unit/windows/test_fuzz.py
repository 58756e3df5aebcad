"""Whatever a batch system prints, parsing it gives windows or an error of the product."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hpcpanda_edge.windows import lsf, pbs, slurm
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.packing.windows import BackfillWindow

DATA = Path(__file__).parent / "data"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SAMPLES = [path.read_text() for path in sorted(DATA.iterdir())]
PIECES = [
    "[0-99999999]",
    "9" * 30,
    "|",
    "\n",
    "null",
    "{",
    "]",
    '"',
    "-1",
    "٣",
    "\0",
    "UNLIMITED",
    "NaN",
    "1e999",
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A sample with pieces cut out and others put in."""
    text = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        piece = draw(st.sampled_from(PIECES) | st.text(max_size=5))
        text = text[:at] + piece + text[at + draw(st.integers(0, 30)) :]
    return text


outputs = mutated() | st.text(max_size=300) | st.sampled_from(SAMPLES)


def check(windows: tuple[BackfillWindow, ...]) -> None:
    """Windows that a planner can use."""
    assert all(w.nodes > 0 and (w.seconds is None or w.seconds > 0) for w in windows)


@settings(max_examples=150, deadline=2000)
@given(nodes=outputs, jobs=outputs, reservations=outputs)
def test_slurm_output_of_any_kind(nodes: str, jobs: str, reservations: str) -> None:
    """Garbage from sinfo, squeue or scontrol never raises anything but the product's errors."""
    slurm.parse_test_only(nodes)
    with contextlib.suppress(HpcPandaError):
        records = slurm.parse_nodes(nodes)
        claims = slurm.parse_jobs(jobs), slurm.parse_reservations(reservations)
        check(slurm.find_windows(records, *claims, NOON))


@settings(max_examples=150, deadline=2000)
@given(nodes=outputs, jobs=outputs, reservations=outputs)
def test_pbs_output_of_any_kind(nodes: str, jobs: str, reservations: str) -> None:
    """Garbage from pbsnodes, qstat or pbs_rstat never raises anything but the product's errors."""
    with contextlib.suppress(HpcPandaError):
        records = pbs.parse_nodes(nodes)
        claims = pbs.parse_jobs(jobs), pbs.parse_reservations(reservations)
        check(pbs.find_windows(records, *claims, queue=None, now=NOON))


@settings(max_examples=150, deadline=2000)
@given(slots=outputs, jobs=outputs)
def test_lsf_output_of_any_kind(slots: str, jobs: str) -> None:
    """Garbage from bslots or bjobs never raises anything but the product's errors."""
    with contextlib.suppress(HpcPandaError):
        check(lsf.find_windows(lsf.parse_bslots(slots), lsf.parse_bjobs(jobs), queue=None, slots_per_node=42))


@pytest.mark.parametrize(
    "line", ["n1|p*|idle|up|infinite\n", "PD|p|1|N/A|N/A|n[0-99999,x]|Resources\n", "|" * 80 + "\n"]
)
def test_long_outputs_take_bounded_time(line: str) -> None:
    """A hundred thousand lines, hostile ones too, are read in seconds."""
    text = line * 100_000
    begin = datetime.now(UTC)
    with contextlib.suppress(HpcPandaError):
        nodes = slurm.parse_nodes(text)
        slurm.find_windows(nodes, slurm.parse_jobs(text), slurm.parse_reservations(text), NOON)
    jobs = slurm.parse_jobs(text.replace("N/A|N/A", "2026-11-20T13:00:00|N/A"))
    slurm.find_windows(slurm.parse_nodes("n1|p*|idle|up|infinite"), jobs, (), NOON)
    assert (datetime.now(UTC) - begin).total_seconds() < 60


@pytest.mark.parametrize(
    "filling", ["\n", " ", "\t\n", "Name:", "Name: a\n", "reserve_start = ", "ReservationName=", "["]
)
def test_repetition_takes_bounded_time(filling: str) -> None:
    """A million blanks or half records cost no more than reading them."""
    text = "Resv ID: R1.s\nReservationName=a StartTime=" + filling * 200_000
    begin = datetime.now(UTC)
    pbs.parse_reservations(text)
    slurm.parse_reservations(text)
    for parse in (slurm.parse_nodes, pbs.parse_nodes, pbs.parse_jobs, lsf.parse_bslots, lsf.parse_bjobs):
        with contextlib.suppress(HpcPandaError):
            parse(text)
    slurm.parse_jobs(text)
    slurm.parse_test_only(text)
    assert (datetime.now(UTC) - begin).total_seconds() < 20
