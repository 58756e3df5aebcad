"""Tasks that read and write datasets, from the command line to the merged file."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot
from support.chain import chain_task, run_to_output, serial_digest
from support.services import Services, wait_for_task, wait_until

from hpcpanda.client.local_files import Checksum, describe_file
from hpcpanda.domain.inputs import InputFormat, Inputs
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import Output
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import Staging, TaskSpec
from hpcpanda.payload.inputs import describe
from hpcpanda.payload.listing import load_listing

SIZES = (150, 90, 160)
EVENTS = sum(SIZES)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """ROOT files of different lengths, with clusters of 40 entries."""
    folder = tmp_path_factory.mktemp("root")
    random = np.random.default_rng(1)
    made = []
    for number, size in enumerate(SIZES):
        made.append(folder / f"data.{number}.root")
        with uproot.recreate(made[-1]) as file:
            tree = file.mktree("t", {"x": "f8"})
            values = random.random(size)
            for start in range(0, size, 40):
                tree.extend({"x": values[start : start + 40]})
    return made


def reading(inputs: Inputs, **more: Any) -> TaskSpec:
    spec = chain_task("read", module="dataset_payload", settings={"event_s": 0.02}, max_range=20)
    return replace(spec, events=None, inputs=inputs, **more)


def unused(name: str) -> str:
    """A name for a dataset of this run of a test only."""
    return f"user.local:{name}.{uuid.uuid4().hex}"


def inline(files: list[Path]) -> Inputs:
    described = tuple(describe(str(path), InputFormat.ROOT, "t") for path in files)
    return Inputs(format=InputFormat.ROOT, container="t", files=described)


def dataset(services: Services, name: str, files: list[Path], *sites: str) -> Inputs:
    """A closed dataset of files that are at one site each."""
    with services.client() as client:
        client.create_dataset(name)
        for path, site in zip(files, sites, strict=True):
            described = describe_file(
                path, site=site, kind=InputFormat.ROOT, container="t", checksum=Checksum.ADLER32
            )
            client.add_files(name, [described])
        client.close_dataset(name)
    return Inputs(format=InputFormat.ROOT, container="t", dataset=name)


@pytest.mark.parametrize("staging", ["in-place", "copy"])
def test_a_dataset_is_read_as_files_named_one_by_one(
    services: Services, files: list[Path], tmp_path: Path, staging: str
) -> None:
    """Leases that cut files, topped up while it runs: the digest is that of a serial run over the same files named one by
    one, whether they are read in place or copied first."""
    inputs = dataset(services, unused("read"), files, *(["laptop"] * 3))
    spec = reading(inputs, staging=Staging(inputs=staging))  # type: ignore[arg-type]
    finished = run_to_output(services, spec)
    assert finished.output.events == IntervalSet.span(0, EVENTS)
    assert finished.output.digest == serial_digest(reading(inline(files)), tmp_path / "serial")
    assert finished.task.spec == spec
    assert finished.task.progress.total == EVENTS


def test_workers_learn_of_files_while_they_run(services: Services, files: list[Path], tmp_path: Path) -> None:
    """The files of later leases reach workers that were started before: one allocation reads them all."""
    inputs = dataset(services, unused("slow"), files, *(["laptop"] * 3))
    spec = reading(inputs)
    seen: set[tuple[int, ...]] = set()
    with services.client() as client:
        task_id = client.submit(spec).task_id
        listing = services.spool / "tasks" / str(task_id) / "events" / "files.json"

        def ended() -> bool:
            if listing.exists():
                seen.add(tuple(f.first or 0 for f in load_listing(listing)))
            return client.task(task_id).state.final

        wait_until(ended, f"the end of task {task_id}", seconds=90)
        assert client.task(task_id).state is TaskState.DONE
        (output,) = client.outputs(task_id).files
    assert output.digest == serial_digest(reading(inline(files)), tmp_path / "serial")
    assert len(seen) > 1, "all files were known from the start"
    wait_until(lambda: not listing.exists(), "the clean-up of the task")


def test_what_is_elsewhere_waits_and_what_is_written_can_be_read(
    services: Services, files: list[Path], tmp_path: Path
) -> None:
    """Events whose file no edge has wait, until a copy is told of; the output is registered with where it came from, and
    a second task reads it."""
    read, written = unused("two-places"), unused("written")
    inputs = dataset(services, read, files, "laptop", "elsewhere", "laptop")
    first = reading(inputs, output=Output(file="out.h5", dataset=written))
    with services.client() as client:
        task_id = client.submit(first).task_id
        there = EVENTS - SIZES[1]
        wait_until(lambda: client.task(task_id).progress.done == there, "all that can be done", seconds=60)
        assert client.task(task_id).progress.ready == SIZES[1]
        assert client.dataset(written).open
        here = describe_file(
            files[1], site="laptop", kind=InputFormat.ROOT, container="t", checksum=Checksum.NONE
        )
        client.add_files(read, [here])
        assert wait_for_task(client, task_id).state is TaskState.DONE
        (output,) = client.outputs(task_id).files
        assert output.digest == serial_digest(reading(inline(files)), tmp_path / "serial")
        shown = client.dataset(written)
        assert (shown.open, shown.files, shown.events) == (False, 1, EVENTS)
        assert [(p.task_id, p.source) for p in shown.provenance] == [(task_id, read)]
        (made,) = client.dataset_files(written).files
        assert (made.task_id, made.file.digest, made.file.size) == (task_id, output.digest, output.size)
        assert [(r.site, r.path) for r in made.file.replicas] == [("laptop", output.path)]

        second = chain_task("generate_from", module="dataset_payload", output=Output(file="again.h5"))
        hdf5 = Inputs(format=InputFormat.HDF5, container="x", dataset=written)
        again = wait_for_task(client, client.submit(replace(second, events=None, inputs=hdf5)).task_id)
        assert again.state is TaskState.DONE, again.message
        (copy,) = client.outputs(again.task_id).files
    assert copy.digest == output.digest


def test_the_command_line_adds_files(services: Services, files: list[Path], tmp_path: Path) -> None:
    """Files at hand are counted and told with their checksums; a list is sent as it is; a wrong line is named."""
    did = unused("by-hand")
    words = ("hpcpanda", "dataset")
    assert services.run(*words, "create", did, "--meta", "run=3").returncode == 0
    site = ("--site", "laptop", "--container", "t", "--checksum", "sha256")
    for answer in ("2 files added, 0 known", "0 files added, 2 known"):
        ran = services.run(*words, "add", did, *map(str, files[:2]), *site)
        assert answer in ran.stdout, ran.stderr
    listed = tmp_path / "list.jsonl"
    with services.client() as client:
        told = client.dataset_files(did).files
        assert [f.file.events for f in told] == list(SIZES[:2])
        assert told[0].file.clusters == (40, 80, 120)
        assert told[0].file.checksum is not None
        assert client.dataset(did).meta == {"run": "3"}
    good = {"name": "far.root", "events": 5, "size": 7}
    listed.write_text(json.dumps(good) + "\n\n" + json.dumps({"name": "bad.root", "size": 7}) + "\n")
    ran = services.run(*words, "add", did, "--list", str(listed))
    assert (ran.returncode, ran.stderr.strip()) == (
        1,
        f"hpcpanda: {listed}, line 3: events: Field required",
    )
    listed.write_text(json.dumps(good))
    assert services.run(*words, "add", did, "--list", str(listed), "-o", "quiet").stdout == "1\n"
    ran = services.run(*words, "add", did, str(files[0]))
    assert (ran.returncode, ran.stderr.strip()) == (
        1,
        "hpcpanda: FILES: give files with --site, or --list alone",
    )
