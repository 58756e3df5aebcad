"""Two dispatchers over PostgreSQL behind a plain proxy, one killed every few seconds while real MPI workers work."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import Output
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import RangePolicy, TaskSpec
from hpcpanda.merge import digest_columns
from tests.support import chaos_payload
from tests.support.chain import checked_manifest
from tests.support.postgres import (
    PostgresServer,
    postgres_server,  # noqa: F401 - fixture
)
from tests.support.replicas import REPLICAS, Killer, away, replicated
from tests.support.services import wait_for_task

SECONDS = float(os.environ.get("HPCPANDA_REPLICA_SECONDS", "6"))
"""How long the task would take on the cores alone."""
EVENTS = int(os.environ.get("HPCPANDA_REPLICA_EVENTS", "24000"))
CORES = 2
EVERY_S = (0.8, 1.6) if SECONDS <= 30 else (2.0, 5.0)
"""Time between two kills: few seconds, and fewer in the short form, so that there are enough of them."""


class Serial:
    """What a serial run sees."""

    def __init__(self, seed: int) -> None:
        self.first, self.last, self.seed = 0, EVENTS, seed
        self.settings: dict[str, float] = {}


def spec_of(seed: int) -> TaskSpec:
    folder = str(Path(chaos_payload.__file__).parent)
    return TaskSpec(
        name="replicas",
        events=EVENTS,
        seed=seed,
        payload=CallablePayload(
            call="chaos_payload:generate",
            python_path=(folder,),
            settings={"event_us": 1e6 * CORES * SECONDS / EVENTS},
        ),
        ranges=RangePolicy(target_seconds=0.1),
        output=Output(file="replicas.h5"),
    )


@pytest.mark.timeout(3600)
def test_one_replica_after_the_other_is_killed_and_nothing_is_lost_or_doubled(
    tmp_path: Path,
    postgres_server: PostgresServer,  # noqa: F811
) -> None:
    """A campaign of one task on MPI workers, through a proxy that only passes connections on: the edge works on through
    every kill, the task ends done, each event is in its output once, and the content is that of a serial run."""
    began = time.monotonic()
    with replicated(tmp_path, postgres_server, nodes=1, cores=CORES) as (services, proxy):
        with Killer(services, every_s=EVERY_S) as killer, services.client() as client:
            task_id = client.submit(spec_of(seed=7)).task_id
            wait_for_task(client, task_id, seconds=120 + 6 * SECONDS)
        services.check_alive("edge")
        for number in range(REPLICAS):
            services.wait_for_replica(number)
        with services.client() as client:
            task = client.task(task_id)
            (output,) = client.outputs(task_id).files
        assert task.state is TaskState.DONE, task.message
        assert task.progress.done == EVENTS
        assert output.events == IntervalSet.span(0, EVENTS)
        assert output.digest == digest_columns(chaos_payload.generate(Serial(7)))  # type: ignore[arg-type]
        checked_manifest(output, task)
        assert killer.kills >= max(3, SECONDS / 10)
        assert len(proxy.given) == 2, "one replica was never used"
        assert "Traceback" not in services.log("edge")
        print(
            f"{EVENTS} events in {time.monotonic() - began:.0f} s with {killer.kills} kills: connections {dict(proxy.given)}, "
            f"passed over {dict(proxy.passed_over)}, turned away {proxy.turned_away}, "
            f"the edge found nobody {away(services)} times; digest equal to serial"
        )
