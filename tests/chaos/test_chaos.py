"""Random SIGKILLs of every kind of process while events are streamed, committed and merged."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.outputs import Output
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import RangePolicy, TaskSpec
from hpcpanda.merge import digest_columns
from tests.support import chaos_payload
from tests.support.services import Services, kill, wait_for_task

KILLS = int(os.environ.get("HPCPANDA_CHAOS_KILLS", "20"))
EVENTS = int(os.environ.get("HPCPANDA_CHAOS_EVENTS", "60000"))
SEED = int(os.environ.get("HPCPANDA_CHAOS_SEED", "1"))

WEIGHTS = {
    "worker": 6, "fork server": 2, "nursery": 1, "job keeper": 1, "rank": 3, "proxy": 1, "mpiexec": 1, "head": 2, "merge": 3, "edge": 2, "dispatcher": 2,
}  # fmt: skip


def spec_of(seed: int, event_us: float) -> TaskSpec:
    folder = str(Path(chaos_payload.__file__).parent)
    return TaskSpec(
        name="chaos",
        events=EVENTS,
        seed=seed,
        payload=CallablePayload(
            call="chaos_payload:generate", python_path=(folder,), settings={"event_us": event_us}
        ),
        ranges=RangePolicy(target_seconds=0.1),
        output=Output(file="chaos.h5"),
    )


class Serial:
    """What a serial run sees."""

    def __init__(self, seed: int) -> None:
        self.first, self.last, self.seed = 0, EVENTS, seed
        self.settings: dict[str, float] = {}


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_every_event_is_merged_once_whatever_is_killed(tmp_path: Path) -> None:
    """Workers, fork servers, ranks, launchers, heads, merges, the edge and the dispatcher are killed at
    random; every task ends done, and its content is that of a serial run."""
    dice = random.Random(SEED)
    services = Services(tmp_path, nodes=2, cores=2)
    killed: Counter[str] = Counter()
    seed = 0
    try:
        services.start_dispatcher()
        services.start_edge()
        while killed.total() < KILLS:
            seed += 1
            # cheap events, yet a task that outlives its share of the kills
            event_us = max(100.0, 2e6 * 1.2 * (KILLS - killed.total()) / EVENTS)
            spec = spec_of(seed, event_us)
            with services.client() as client:
                task_id = client.submit(spec).task_id
            _kill_while_running(services, task_id, dice, killed)
            with services.client() as client:
                task = wait_for_task(client, task_id, seconds=300)
                assert task.state is TaskState.DONE, task.message
                assert task.progress.done == EVENTS
                (output,) = client.outputs(task_id).files
            assert output.events == IntervalSet.span(0, EVENTS)
            assert output.digest == digest_columns(chaos_payload.generate(Serial(seed)))  # type: ignore[arg-type]
            print(f"task {task_id}: {EVENTS} events, digest equal to serial, after {dict(killed)}")
    finally:
        services.stop()
    assert killed.total() >= KILLS


def _kill_while_running(services: Services, task_id: int, dice: random.Random, killed: Counter[str]) -> None:
    while killed.total() < KILLS:
        for name in services.started:
            services.check_alive(name)
        time.sleep(dice.uniform(0.1, 1.5))
        candidates: dict[str, list] = {}
        for role, process in services.processes():
            if role in WEIGHTS:
                candidates.setdefault(role, []).append(process)
        if not candidates:
            continue
        roles = sorted(candidates)
        role = dice.choices(roles, [WEIGHTS[r] for r in roles])[0]
        victim = dice.choice(sorted(candidates[role], key=lambda p: p.pid))
        if not kill(victim):
            continue
        killed[role] += 1
        if role in services.started and services.started[role].pid == victim.pid:
            services.started[role].wait()
            (services.start_dispatcher if role == "dispatcher" else services.start_edge)()
        try:
            with services.client() as client:
                if client.task(task_id).state.final:
                    return
        except Unavailable:
            continue
