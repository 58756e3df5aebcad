"""Tasks that are paused and tried again, by real allocations: every event once in the outputs, whatever edges still had."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
from support.chain import chain_task, run_to_end, wait_for_task
from support.services import Services, wait_until

from hpcpanda.domain.exchange import OutputFile
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import Resources, TaskSpec


def curable(tmp_path: Path, *, events: int, max_failed: int, **settings: float) -> TaskSpec:
    return chain_task(
        "curable",
        events=events,
        settings={"bad": 42, "cure": str(tmp_path / "cure"), **settings},
        max_failed=max_failed,
    )


def content(files: tuple[OutputFile, ...]) -> tuple[list[int], list[float]]:
    """Events and values of all files, in the order of events."""
    pairs: list[tuple[int, float]] = []
    for output in files:
        with h5py.File(output.path) as file:
            pairs += zip(file["event"][:].tolist(), file["value"][:].tolist(), strict=True)
    return tuple(map(list, zip(*sorted(pairs), strict=True)))  # type: ignore[return-value]


def expected(events: int) -> tuple[list[int], list[float]]:
    """What a serial run gives, of a task of seed 1."""
    event = np.arange(events, dtype=np.uint64)
    value = ((event * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)) >> np.uint64(11)).astype("f8")
    return list(range(events)), value.tolist()


def test_a_finished_task_is_completed(services: Services, tmp_path: Path) -> None:
    """Only what failed runs again; the first file stays as it is to the byte, the rest is in another one beside it."""
    task = run_to_end(services, curable(tmp_path, events=120, max_failed=1))
    assert task.state is TaskState.FINISHED
    with services.client() as client:
        (first,) = client.outputs(task.task_id).files
        before = hashlib.sha256(Path(first.path).read_bytes()).hexdigest()
        (tmp_path / "cure").touch()
        assert client.retry(task.task_id).progress.ready == 1
        task = wait_for_task(client, task.task_id, seconds=90)
        files = client.outputs(task.task_id).files
    assert (task.state, task.progress.done, task.progress.failed) == (TaskState.DONE, 120, 0)
    assert [len(f.events) for f in sorted(files, key=lambda f: len(f.events))] == [1, 119]
    assert {Path(f.path).name for f in files} == {"out.h5", "out.try2.h5"}
    assert hashlib.sha256(Path(first.path).read_bytes()).hexdigest() == before
    assert content(files) == expected(120)


def test_a_failed_task_is_done_again_at_once(services: Services, tmp_path: Path) -> None:
    """While its edge may still have journals, packs and merges of the first try: none of that gets into the output."""
    task = run_to_end(services, curable(tmp_path, events=200, max_failed=0))
    assert task.state is TaskState.FAILED
    (tmp_path / "cure").touch()
    with services.client() as client:
        client.retry(task.task_id)
        task = wait_for_task(client, task.task_id, seconds=90)
        files = client.outputs(task.task_id).files
    assert (task.state, task.message) == (TaskState.DONE, None)
    assert content(files) == expected(200)


def test_a_paused_task_waits(services: Services, tmp_path: Path) -> None:
    """What runs is finished, what lies at the edge comes back, and nothing more is done until it is resumed."""
    (tmp_path / "cure").touch()
    spec = chain_task("generate", events=400, settings={"event_s": 0.05}, max_range=2)
    with services.client() as client:
        task_id = client.submit(spec).task_id
        wait_until(lambda: client.task(task_id).progress.done > 0, "the first commit")
        assert client.pause(task_id).state is TaskState.PAUSED

        def settled() -> bool:
            task = client.task(task_id)
            return task.progress.leased == 0 or task.state is not TaskState.PAUSED

        wait_until(settled, "the end of what runs", seconds=60)
        task = client.task(task_id)
        if task.state is TaskState.PAUSED:
            assert client.task(task_id).progress.done == task.progress.done
            assert task.progress.ready > 0
            client.resume(task_id)
        assert wait_for_task(client, task_id, seconds=90).state is TaskState.DONE
        assert content(client.outputs(task_id).files) == expected(400)


def test_an_event_that_needs_more_memory_gets_it(services: Services) -> None:
    """Its worker is ended at the limit; the next packs are told to allow twice as much, and nothing is lost."""
    spec = chain_task(
        "hungry",
        events=40,
        settings={"bad": 7, "mb": 400},
        max_range=4,
        attempts=1,
        retries=2,
        resources=Resources(memory_mb=350),
    )
    task = run_to_end(services, spec)
    assert (task.state, task.message) == (TaskState.DONE, None)
    assert task.changes is not None
    assert task.changes.more_memory == 2.0
    with services.client() as client:
        assert content(client.outputs(task.task_id).files) == expected(40)
