"""Every example runs, and its events do not depend on how ranges are cut."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hpcpanda.client.job_check import check_jobs
from hpcpanda.client.task_file import load_task
from hpcpanda.events.columns import Items
from hpcpanda.payload.check import check_payload
from hpcpanda.payload.forms import prepare

from .conftest import EXAMPLES, DataFile, Example

LHE = "pylhe-testfile-madgraph-2.2.1-Z-mlm.lhe.gz"


def masses_of_muons(output: dict[str, Any]) -> list[float]:
    """Mass of the first two muons of each event, from the jagged columns."""
    p4 = np.stack([output[f"muon_{c}"].content for c in ("e", "px", "py", "pz")], axis=1).astype("f8")
    masses, at = [], 0
    for n in output["n_muons"]:
        e, *p = p4[at : at + 2].sum(axis=0)
        masses.append(float(np.sqrt(e * e - np.dot(p, p))))
        at += n
    return masses


def test_zmumu_does_not_depend_on_the_cut(example: Example) -> None:
    """Pythia initialised once and reseeded an event gives the same events to all workers, in any cut."""
    pytest.importorskip("pythia8mc")
    report = check_payload(example("zmumu"), events=120)
    assert report.ok, (report.difference, report.failures)
    assert report.warnings == ()
    assert report.shared_mb is not None
    assert report.shared_mb > 20


def test_zmumu_makes_z_bosons(example: Example, tmp_path: Path) -> None:
    """The dimuon mass peaks at the Z, charges balance, and tracks are where a tracker would see them."""
    pytest.importorskip("pythia8mc")
    output = prepare(example("zmumu")).runner(tmp_path).run(1000, 1150)
    assert isinstance(output, dict)
    assert abs(np.median(output["dimuon_mass"]) - 90.7) < 1.0
    close = np.isclose(output["dimuon_mass"], masses_of_muons(output), rtol=1e-3)
    assert close.mean() > 0.9  # the two hardest muons are nearly always the pair
    assert 20 < output["n_tracks"].mean() < 80
    tracks = output["track_px"]
    assert isinstance(tracks, Items)
    assert len(np.asarray(tracks.content)) == output["n_tracks"].sum()


def test_lhe_shower_does_not_depend_on_the_cut(example: Example, data_file: DataFile) -> None:
    """Entries of a real MadGraph file are showered the same whether skipped to, read on to, or gone back to."""
    pytest.importorskip("pythia8mc")
    report = check_payload(example("lhe_shower", data_file(LHE)), events=40)
    assert report.ok, (report.difference, report.failures)
    assert report.warnings == ()


def test_lhe_shower_reaches_the_last_entry(example: Example, data_file: DataFile, tmp_path: Path) -> None:
    """The file's last entries are skipped to and accepted."""
    pytest.importorskip("pythia8mc")
    output = prepare(example("lhe_shower", data_file(LHE))).runner(tmp_path).run(9_990, 10_000)
    assert isinstance(output, dict)
    assert output["accepted"].tolist() == [1] * 10
    assert (output["n_charged"] > 0).all()


def test_dimuon_analysis_finds_resonances(example: Example, data_file: DataFile, tmp_path: Path) -> None:
    """Over the real CMS file the masses are cut-independent and show the J/psi and the Z."""
    spec = example("dimuon_analysis", data_file("cms2012_dimuon.root"))
    report = check_payload(spec, events=60)
    assert report.ok, (report.difference, report.failures)
    output = prepare(spec).runner(tmp_path).run(0, 100_000)
    assert isinstance(output, dict)
    mass = output["dimuon_mass"]
    inside = {
        name: ((mass > a) & (mass < b)).sum() for name, a, b in (("j/psi", 3.0, 3.2), ("side", 3.4, 3.6))
    }
    assert inside["j/psi"] > 3 * inside["side"]
    assert abs(np.median(mass[(mass > 80) & (mass < 100)]) - 90.65) < 0.3


@pytest.mark.parametrize("folder", ["command_sh", "process_python"])
def test_program_examples_do_not_depend_on_the_cut(example: Example, folder: str) -> None:
    """The command and the process example write one line an event, the same in any cut."""
    report = check_payload(example(folder), events=60)
    assert report.ok, (report.difference, report.failures)
    assert report.warnings == ()
    assert report.programs_rss_mb > 0


@pytest.mark.parametrize("folder", ["command_sh", "process_python"])
def test_program_examples_number_their_lines(example: Example, folder: str, tmp_path: Path) -> None:
    """Each line begins with its event's number."""
    runner = prepare(example(folder)).runner(tmp_path)
    output = runner.run(500, 520)
    runner.close()
    assert isinstance(output, bytes)
    assert [int(line.split()[0]) for line in output.splitlines()] == list(range(500, 520))


def test_jobs_give_the_same_twice_and_can_be_collected(tmp_path: Path) -> None:
    """Its jobs give the same files twice; the map is periodic at the first r and chaotic at the last."""
    folder = EXAMPLES / "jobs"
    report = check_jobs(load_task(folder / "task.toml"), jobs=2, workers=1)
    assert report.ok, report
    assert report.jobs == (0, 39)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as files:
        for job in report.jobs:
            words = [sys.executable, folder / "scan.py", *map(str, (job, 40, 7, 1))]
            subprocess.run(words, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
            files.write(tmp_path / "lyapunov.json", f"{job:02}/lyapunov.json")
            files.writestr(f"{job:02}/stdout.txt", "said")
    words = [sys.executable, folder / "collect.py", tmp_path / "out.zip"]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    (first_r, first), (last_r, last) = (map(float, line.split()) for line in lines)
    assert (first_r, last_r) == (3.5, 4.0)
    assert first < -0.5
    assert abs(last - 0.6931) < 0.02, "at r = 4 the exponent is log 2"


def test_every_example_is_tested_and_described() -> None:
    """Each example with a task file has a README, is listed in the overview, and runs in a test."""
    folders = sorted(p.parent for p in EXAMPLES.glob("*/task.toml"))
    overview = (EXAMPLES / "README.md").read_text()
    tests = Path(__file__).read_text()
    assert len(folders) >= 5
    for folder in folders:
        assert (folder / "README.md").is_file()
        assert f"[{folder.name}]({folder.name})" in overview
        assert f'"{folder.name}"' in tests
