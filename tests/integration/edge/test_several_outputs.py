"""Tasks with several output files at an edge that runs: made while the task goes on, every event once, whatever ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.edge import (
    FakeDispatcher,
    FakeScheduler,
    FakeTask,
    bounds_in,
    running_edge,
    small_site,
    small_task,
    until,
)

from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import Staging, TaskSpec


@pytest.fixture
def scheduler() -> Iterator[FakeScheduler]:
    fake = FakeScheduler()
    yield fake
    fake.kill_all()


def several(events: int, most: int, **settings: float) -> TaskSpec:
    spec = small_task(events, **settings)
    return replace(spec, output=replace(spec.output, max_events=most))


def check_whole(task: FakeTask, events: int, most: int) -> None:
    """The files that were reported hold every event once, and what they say that they hold."""
    whole = IntervalSet.of(r for file in task.outputs for r in file.events.ranges())
    assert whole == IntervalSet.span(0, events)
    assert sum(len(file.events) for file in task.outputs) == events
    assert all(bounds_in(Path(file.path)) == file.events for file in task.outputs)
    assert all(len(file.events) <= most for file in task.outputs)
    assert len({file.path for file in task.outputs}) == len(task.outputs)


async def test_files_are_made_and_told_while_the_task_runs(tmp_path: Path, scheduler: FakeScheduler) -> None:
    """The first long before the last event; at the end all is in files, and only those are left."""
    dispatcher = FakeDispatcher()
    site = small_site(tmp_path, nodes=2, allocations=2)
    async with running_edge(site, dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(several(900, 60, event_s=0.005))]
        await until(lambda: task.outputs)
        assert task.state is TaskState.RUNNING
        assert len(task.ledger.done) < 900
        await until(lambda: task.state is TaskState.DONE, timeout_s=60)
        await until(lambda: not (tmp_path / "tasks/1/events").exists())
    check_whole(task, 900, 60)
    names = sorted(path.name for path in (tmp_path / "tasks/1/output").glob("*.h5"))
    assert names == sorted(Path(file.path).name for file in task.outputs)
    assert len(names) >= 15


async def test_an_edge_that_crashes_again_and_again_makes_every_file_once(
    tmp_path: Path, scheduler: FakeScheduler
) -> None:
    """Whatever it was about to do, also with an allocation killed in between and answers lost."""
    rng = random.Random(5)
    dispatcher = FakeDispatcher()
    site = small_site(tmp_path, nodes=2, allocations=2)
    task = dispatcher.tasks[dispatcher.submit(several(900, 60, event_s=0.004, die_after=300))]
    for _ in range(8):
        dispatcher.lose_answers = rng.randrange(2)
        async with running_edge(site, dispatcher, scheduler, crash=True):
            await asyncio.sleep(rng.uniform(0.3, 1.0))
    async with running_edge(site, dispatcher, scheduler):
        await until(lambda: task.state is TaskState.DONE, timeout_s=60)
        await until(lambda: not (tmp_path / "tasks/1/events").exists())
    check_whole(task, 900, 60)
    assert dispatcher.faults == {}


async def test_each_file_is_moved_to_where_the_user_wants_it(
    tmp_path: Path, scheduler: FakeScheduler
) -> None:
    """While the task runs; the dispatcher is told of a file when it is there."""
    out = tmp_path / "out"
    out.mkdir()
    dispatcher = FakeDispatcher()
    spec = replace(several(600, 100, event_s=0.004), staging=Staging(destination=f"{out}/{{task}}"))
    async with running_edge(small_site(tmp_path / "spool", nodes=2, allocations=2), dispatcher, scheduler):
        task = dispatcher.tasks[dispatcher.submit(spec)]
        await until(lambda: task.outputs)
        assert task.state is TaskState.RUNNING
        await until(lambda: task.state is TaskState.DONE, timeout_s=60)
        await until(lambda: not (tmp_path / "spool/tasks/1").exists())
    check_whole(task, 600, 100)
    assert {Path(file.path).parent for file in task.outputs} == {out / "1"}
