"""PBS and LSF probes against fake client programs: scripts on PATH that print samples.

No PBS and no LSF runs here. What is real is the calling: words, environment, time-outs, exit statuses and streams;
what the programs print are the samples of tests/unit/windows/data, written after the manuals.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hpcpanda_edge.windows.commands import CallLimits
from hpcpanda_edge.windows.lsf import LsfReader
from hpcpanda_edge.windows.paced import PacedProbe
from hpcpanda_edge.windows.pbs import PbsReader

from hpcpanda.packing.windows import BackfillWindow

DATA = Path(__file__).parents[2] / "unit" / "windows" / "data"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Clients:
    """A folder of fake programs, first on PATH."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = folder / "calls"

    def add(self, name: str, script: str) -> None:
        """A program that notes how it was called and runs a script of sh."""
        program = self._folder / name
        program.write_text(f'#!/bin/sh\necho "{name} $* TZ=$TZ LC_ALL=$LC_ALL" >>"{self._calls}"\n{script}\n')
        program.chmod(0o755)

    def prints(self, name: str, sample: str) -> None:
        """A program that prints a sample."""
        self.add(name, f'cat "{DATA / sample}"')

    @property
    def calls(self) -> list[str]:
        """How the programs were called."""
        return self._calls.read_text().splitlines() if self._calls.exists() else []


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clients:
    """No programs yet."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("TZ", "America/Chicago")
    return Clients(tmp_path)


def pbs_probe(timeout_s: float = 30.0) -> PacedProbe:
    """A probe of PBS at the time of the samples."""
    return PacedProbe(
        PbsReader(queue="prod", limits=CallLimits(timeout_s=timeout_s), now=lambda: NOON), every_s=60.0
    )


async def test_pbs_windows_through_fake_clients(clients: Clients) -> None:
    """pbsnodes, qstat and pbs_rstat are asked in JSON where they can, with times in UTC, once."""
    clients.prints("pbsnodes", "pbsnodes.json")
    clients.prints("qstat", "qstat.json")
    clients.prints("pbs_rstat", "pbs_rstat.txt")
    probe = pbs_probe()
    sighting = await probe.look()
    assert sighting.unknown is None
    assert [(w.nodes, w.seconds and round(w.seconds, -2)) for w in sighting] == [
        (1, None),
        (1, 14_300),
        (1, 3500),
    ]
    await probe.look()
    environment = "TZ=UTC LC_ALL=C"
    assert clients.calls == [
        f"pbsnodes -a -F json {environment}",
        f"qstat -f -F json {environment}",
        f"pbs_rstat -f {environment}",
    ]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Connection refused' >&2; exit 255", "pbsnodes failed with status 255: Connection refused"),
        ("echo 'not json'", "pbsnodes did not print JSON"),
        ("exec sleep 600", "pbsnodes did not answer within 0.5 s"),
        ("exec yes", "pbsnodes printed more than|did not answer"),
        ("kill -9 $$", "pbsnodes failed with status -9: nothing"),
    ],
)
async def test_pbs_in_trouble_is_a_reason(clients: Clients, script: str, reason: str) -> None:
    """A fake pbsnodes that fails in any way leaves nothing known, and says why."""
    clients.add("pbsnodes", script)
    sighting = await pbs_probe(timeout_s=0.5).look()
    assert sighting.known is None
    assert any(part in (sighting.unknown or "") for part in reason.split("|"))


async def test_pbs_that_is_not_there(clients: Clients) -> None:
    """Without any PBS program nothing is known."""
    assert (await pbs_probe().look()).unknown == "pbsnodes is not on the PATH of the edge"


async def test_lsf_windows_through_fake_clients(clients: Clients) -> None:
    """A fake bslots and a fake bjobs are asked once each."""
    clients.prints("bslots", "bslots.txt")
    clients.prints("bjobs", "bjobs.json")
    reader = LsfReader(slots_per_node=42, queue="batch", options=("-R", "select[CN]"))
    assert await reader.read() == (
        BackfillWindow(queue="batch", nodes=1, seconds=12_000.0),
        BackfillWindow(queue="batch", nodes=3, seconds=9005.0),
        BackfillWindow(queue="batch", nodes=6, seconds=1800.0),
    )
    environment = "TZ=UTC LC_ALL=C"
    assert clients.calls == [
        f"bslots -R select[CN] {environment}",
        f"bjobs -u all -json -o stat queue nreq_slot slots time_left {environment}",
    ]


async def test_lsf_without_a_window_or_a_job(clients: Clients) -> None:
    """LSF says that there is nothing on standard error and fails; that is an answer all the same."""
    clients.add("bslots", "echo 'No backfill window meets the specified requirements' >&2; exit 255")
    assert await LsfReader(slots_per_node=42).read() == ()
    clients.prints("bslots", "bslots.txt")
    clients.add("bjobs", "echo 'No unfinished job found' >&2; exit 255")
    assert len(await LsfReader(slots_per_node=42).read()) == 3


async def test_lsf_in_trouble_is_a_reason(clients: Clients) -> None:
    """A fake bslots that cannot reach LSF leaves nothing known."""
    clients.add("bslots", "echo 'Failed in an LSF library call: Master LIM is down' >&2; exit 255")
    sighting = await PacedProbe(LsfReader(slots_per_node=42), every_s=60.0).look()
    assert "Master LIM is down" in (sighting.unknown or "")
