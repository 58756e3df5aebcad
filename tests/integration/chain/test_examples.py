"""Every example, from its task file to its merged file."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from support.chain import (
    CONCAT,
    EXAMPLES,
    ZIP,
    chain_task,
    data_file,
    only_services_left,
    run_to_output,
    serial_digest,
)
from support.services import Services, wait_until

from hpcpanda.client.task_file import load_task
from hpcpanda.domain.inputs import Inputs
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.task import TaskSpec

LHE = "pylhe-testfile-madgraph-2.2.1-Z-mlm.lhe.gz"


def example(name: str, tmp_path: Path, *, events: int, data: Path | None = None) -> TaskSpec:
    """An example's task file cut to few events, with short ranges so that there are many."""
    text = (EXAMPLES / name / "task.toml").read_text()
    text = re.sub(r"target_seconds = .*", "target_seconds = 0.1", text)
    text = text.replace("{here}", str(EXAMPLES / name)).replace('["."]', f'["{EXAMPLES / name}"]')
    if data is not None:
        text = re.sub(r"(?m)^files = .*$", f'files = ["{data}"]', text)
    path = tmp_path / "task.toml"
    path.write_text(text)
    spec = load_task(path)
    if spec.inputs is None:
        return replace(spec, events=events)
    (file,) = spec.inputs.files
    clusters = tuple(c for c in file.clusters if c < events)
    files = (replace(file, events=events, clusters=clusters),)
    return replace(
        spec, inputs=Inputs(format=spec.inputs.format, files=files, container=spec.inputs.container)
    )


@pytest.mark.parametrize(
    ("name", "events", "data"),
    [
        ("zmumu", 120, None),
        ("lhe_shower", 80, LHE),
        ("dimuon_analysis", 3000, "cms2012_dimuon.root"),
        ("command_sh", 800, None),
        ("process_python", 800, None),
    ],
)
def test_the_merged_file_equals_a_serial_run(
    services: Services, tmp_path: Path, name: str, events: int, data: str | None
) -> None:
    """An example's merged content has every event, the digest of a serial run, and a truthful manifest;
    journals and segments are deleted after that, not before."""
    if name in ("zmumu", "lhe_shower"):
        pytest.importorskip("pythia8mc")
    spec = example(name, tmp_path, events=events, data=data_file(data) if data else None)
    finished = run_to_output(services, spec)
    assert finished.output.events == IntervalSet.span(0, events)
    assert finished.output.digest == serial_digest(spec, tmp_path / "serial")
    assert sum(source.ranges for source in finished.manifest.sources) > 1


def test_a_concatenation_is_byte_by_byte_the_serial_output(services: Services, tmp_path: Path) -> None:
    """Lines of all ranges stand in event order in the merged text."""
    finished = run_to_output(services, chain_task("text", events=500, output=CONCAT, max_range=7))
    lines = Path(finished.output.path).read_text().splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(500))


def test_a_zip_has_one_member_a_range(services: Services, tmp_path: Path) -> None:
    """Members come in event order, hold the lines of their range, and together are the serial output."""
    spec = chain_task("text", events=300, output=ZIP, max_range=20)
    finished = run_to_output(services, spec)
    assert finished.output.digest == serial_digest(spec, tmp_path / "serial")
    with zipfile.ZipFile(finished.output.path) as archive:
        assert archive.testzip() is None
        members = [archive.read(m).splitlines() for m in archive.infolist()]
    assert len(members) == sum(source.ranges for source in finished.manifest.sources) >= 15
    assert [int(line.split()[0]) for lines in members for line in lines] == list(range(300))


def test_jobs_leave_their_files_in_the_archive(services: Services) -> None:
    """The example of jobs, cut to six: two files each, under the job's number."""
    spec = replace(load_task(EXAMPLES / "jobs" / "task.toml"), jobs=6)
    done = run_to_output(services, spec)
    with zipfile.ZipFile(done.output.path) as archive:
        assert archive.testzip() is None
        names = [f"{job}/{file}" for job in range(6) for file in ("lyapunov.json", "stdout.txt")]
        assert archive.namelist() == names
        assert all(json.loads(archive.read(name)) for name in names[::2])


def test_one_event_is_a_task(services: Services, tmp_path: Path) -> None:
    """The smallest event space goes all the way."""
    spec = chain_task("generate", events=1)
    assert run_to_output(services, spec).output.digest == serial_digest(spec, tmp_path / "serial")


def test_nothing_is_left_running(services: Services) -> None:
    """When the last task has ended its allocation ends by itself, with all its processes."""
    run_to_output(services, chain_task("generate", events=10))
    wait_until(lambda: only_services_left(services), "the end of the allocation")
    assert not list((services.spool / "tasks").glob("*/events"))


def test_every_example_is_run() -> None:
    """An example that is added is added here."""
    names = {p.parent.name for p in EXAMPLES.glob("*/task.toml")}
    text = Path(__file__).read_text()
    assert names
    assert not [name for name in names if f'"{name}"' not in text]
