"""A long task on all nodes, and one of clearly higher priority that comes later: real ranks of MPI on two nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chain import chain_task, checked_manifest, done, running, serial_digest
from support.services import Services, wait_for_task, wait_until

from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import Resources

EVENTS, EVENT_S = 2000, 0.05
SERVED_S = 60.0
"""Far above what it takes (ten seconds of least work, one range, one start of a pack), for a machine that others use, too."""


@pytest.fixture
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Two nodes of a core, one allocation: nothing is free beside a task that uses both."""
    with running(Services(tmp_path_factory.mktemp("urgent"), nodes=2, cores=1)) as started:
        yield started


def test_an_urgent_task_is_served_while_a_long_one_runs(services: Services, tmp_path: Path) -> None:
    """The pack of the long one finishes its ranges and makes place, and says so; the urgent one is merged, too, before
    the long one ends. In the end each has every event once, with the content of a serial run."""
    cost = {"settings": {"event_s": EVENT_S}, "resources": Resources(event_seconds=EVENT_S)}
    long = chain_task("generate", events=EVENTS, name="long", **cost)
    urgent = chain_task("generate", events=20, name="urgent", priority=5, **cost)
    with services.client() as client:
        first = client.submit(long).task_id
        wait_until(
            lambda: done(client, first) > 0, "the first events", on_wait=lambda: services.check_alive("edge")
        )
        second = client.submit(urgent).task_id
        asked = time.monotonic()
        explained: list[str] = []

        def makes_place() -> bool:
            ran = services.run("hpcpanda-edge", "explain", "--site", str(services.site_file), "-o", "json")
            packs = [p for a in json.loads(ran.stdout)["allocations"] for p in a["packs"]]
            explained[:] = [ran.stdout]
            return (
                any(p["draining"] and p["gives_way_to"] == second for p in packs) or done(client, second) > 0
            )

        wait_until(makes_place, "a pack that makes place", seconds=SERVED_S)
        end = wait_for_task(client, second, seconds=SERVED_S)
        served_s = time.monotonic() - asked
        between = client.task(first)
        assert (end.state, end.progress.done) == (TaskState.DONE, 20)
        assert between.state is TaskState.RUNNING, f"after {served_s:.1f} s the long one has ended, too"
        assert between.progress.done < EVENTS
        last = wait_for_task(client, first, seconds=240)
        assert (last.state, last.progress.done) == (TaskState.DONE, EVENTS)
        for task, spec in ((end, urgent), (last, long)):
            (output,) = client.outputs(task.task_id).files
            checked_manifest(output, task)
            assert output.digest == serial_digest(spec, tmp_path / spec.name)
