"""Usage is counted once though the edge is killed at random moments."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
from integration.edge.test_kill import edge_process, finished
from support.dispatcher import running_dispatcher
from support.edge import small_task

from hpcpanda.domain.states import TaskState


def test_a_killed_edge_counts_nothing_twice_and_forgets_nothing(tmp_path: Path) -> None:
    """After eight kills, and one of an allocation, the report has each event once and the core-seconds that the dispatcher
    has recorded itself; and the time of the nodes is no more than passed."""
    rng = random.Random(5)
    began = time.time()
    with (
        running_dispatcher(tmp_path / "dispatcher", lease_seconds=5.0, sweep_seconds=0.5) as dispatcher,
        dispatcher.user() as user,
    ):
        task_id = user.submit(small_task(800, event_s=0.003, die_after=200)).task_id
        for _ in range(8):
            with edge_process(tmp_path, dispatcher, end=signal.SIGKILL):
                time.sleep(rng.uniform(0.6, 1.6))
        with edge_process(tmp_path, dispatcher, end=signal.SIGTERM):
            (task,) = finished(user, [task_id], 90)
            assert task.state is TaskState.DONE
            deadline = time.monotonic() + 60
            while sum(row.amounts.done for row in user.usage().rows) < 800:
                assert time.monotonic() < deadline, user.usage()
                time.sleep(0.5)
        (row,) = user.usage().rows
        assert (row.amounts.done, row.amounts.failed) == (800, 0)
        assert task.progress.event_seconds is not None
        assert row.amounts.useful_s == pytest.approx(task.progress.event_seconds * 800)
        assert 0 < row.amounts.node_s <= 2 * 2 * (time.time() - began)  # two allocations of at most two nodes
        assert row.amounts.held_s == pytest.approx(2 * row.amounts.node_s)
