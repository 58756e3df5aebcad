"""SIGKILL of the edge at random moments, against a real dispatcher."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dispatcher import RunningDispatcher, running_dispatcher
from support.edge import bounds_in, small_site, small_task

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.client.site_file import SITE
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task_views import Task

PROCESS = Path(__file__).parents[2] / "support" / "edge_process.py"


@pytest.fixture
def dispatcher(tmp_path: Path) -> Iterator[RunningDispatcher]:
    with running_dispatcher(tmp_path / "dispatcher", lease_seconds=5.0, sweep_seconds=0.5) as running:
        yield running


@contextlib.contextmanager
def edge_process(
    tmp_path: Path, dispatcher: RunningDispatcher, *, end: int
) -> Iterator[subprocess.Popen[bytes]]:
    """An edge over ``tmp_path/spool``, ended by a signal."""
    site = tmp_path / "site.json"
    site.write_bytes(SITE.dump_json(small_site(tmp_path / "spool", nodes=2, allocations=2)))
    with (tmp_path / "edge.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(PROCESS), str(site), dispatcher.url, dispatcher.edge_token("here")],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(end)
        process.wait(20)


def finished(user: DispatcherClient, ids: list[int], timeout_s: float) -> list[Task]:
    """The tasks, once all are final."""
    deadline = time.monotonic() + timeout_s
    while True:
        tasks = [user.task(task_id) for task_id in ids]
        if all(task.state.final for task in tasks):
            return tasks
        assert time.monotonic() < deadline, [(t.state, t.progress, user.explain(t.task_id)) for t in tasks]
        time.sleep(0.2)


def test_every_event_counts_once_whenever_the_edge_is_killed(tmp_path: Path, dispatcher: RunningDispatcher):
    """Two tasks come out whole though the edge is killed ten times, and one of its allocations too."""
    rng = random.Random(11)
    with dispatcher.user() as user:
        ids = [
            user.submit(small_task(1000, event_s=0.003, die_after=200)).task_id,
            user.submit(small_task(700, event_s=0.003, bad_event=5)).task_id,
        ]
        for _ in range(10):
            with edge_process(tmp_path, dispatcher, end=signal.SIGKILL):
                time.sleep(rng.uniform(0.6, 1.6))
        log = tmp_path / "edge.log"
        starts = log.read_text().count("edge-registered")
        with edge_process(tmp_path, dispatcher, end=signal.SIGTERM) as last:
            while log.read_text().count("edge-registered") == starts:
                time.sleep(0.05)
            tasks = finished(user, ids, 60)
        assert last.returncode == 0
    assert tasks[0].state is TaskState.DONE
    assert tasks[1].state is TaskState.FAILED  # one event failed, and it may lose none
    assert bounds_in(tmp_path / "spool/tasks/1/output/out.h5") == IntervalSet.span(0, 1000)


def test_a_second_edge_over_the_spool_ends_with_an_error(tmp_path: Path, dispatcher: RunningDispatcher):
    """The second edge says who has the spool, and the first goes on."""
    with edge_process(tmp_path, dispatcher, end=signal.SIGTERM) as first:
        while not (tmp_path / "spool/edge/edge.sqlite").exists():
            time.sleep(0.05)
        with edge_process(tmp_path, dispatcher, end=0) as second:
            assert second.wait(20) == 1
        assert first.poll() is None
    assert "another edge runs over the spool" in (tmp_path / "edge.log").read_text()
