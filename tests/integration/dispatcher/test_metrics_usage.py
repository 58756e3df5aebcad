"""What a report says of real allocations: it adds up, and agrees with what others have measured."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support.chain import chain_task
from support.services import Services, kill, wait_for_task, wait_until

from hpcpanda.domain.states import TaskState
from hpcpanda.domain.usage import Amounts, UsageBy

CORES = 2
REPORT_S = 1.0
"""A head writes down so often what cores did, and when it was last there: what a kill can take of that."""
START_S = 2.0
"""A head's first word comes after its program was loaded, which a loaded machine does slowly."""


class Witness:
    """Sees from outside how long allocations run: the lives of their heads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lives: dict[str, tuple[float, float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for role, process in self._services.processes():
                if role == "head":
                    with contextlib.suppress(psutil.Error, OSError):
                        name = re.findall(r"a[0-9a-f]{12,}", " ".join(process.cmdline()))[-1]
                        first, _ = self._lives.get(name, (process.create_time(), 0.0))
                        self._lives[name] = (min(first, process.create_time()), time.time())

    def seconds(self) -> tuple[float, int]:
        """How long all have run, and how many there were."""
        self._over.set()
        self._thread.join()
        return sum(last - first for first, last in self._lives.values()), len(self._lives)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path, cores=CORES)
    try:
        made.start_dispatcher()
        made.start_edge()
        yield made
    finally:
        made.stop()


def drain(services: Services) -> None:
    """End the edge; it says all that it has to say."""
    assert services.run("hpcpanda-edge", "drain", "--site", str(services.site_file)).returncode == 0
    edge = services.started["edge"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        edge.wait(90)
    assert edge.returncode == 0, services.log("edge")[-3000:]


def lost(amounts: Amounts) -> float:
    return amounts.preempted_s + amounts.lost_s


def test_a_campaign_adds_up(services: Services) -> None:
    """Two tasks run to their end though the allocation of the first is killed in the middle of long events: what was
    useful is what the dispatcher measured; what was lost is what was in hand; held is charged time on all cores and no
    more than a witness saw; and used = useful + lost to within what a kill takes of the last report."""
    witness = Witness(services)
    with services.client() as client:
        slow = chain_task("generate", name="slow", events=4, settings={"event_s": 5.0}, max_range=1)
        first = client.submit(slow).task_id

        def busy() -> bool:
            return client.task(first).progress.cores_busy > 1.5

        wait_until(busy, "both cores at work")
        for role, process in services.processes():
            if role in {"head", "mpiexec", "proxy", "rank", "worker", "agent"}:
                kill(process)
        assert wait_for_task(client, first, seconds=240).state is TaskState.DONE
        second = client.submit(
            chain_task("generate", name="quick", events=100, settings={"event_s": 0.05})
        ).task_id
        assert wait_for_task(client, second, seconds=240).state is TaskState.DONE
        drain(services)
        seconds, allocations = witness.seconds()
        by_task = {int(row.key): row.amounts for row in client.usage().rows}
        total = client.usage(UsageBy.SITE).total
        measured = {t: client.task(t).progress for t in (first, second)}
    assert allocations >= 2
    for task_id, progress in measured.items():
        assert by_task[task_id].done == progress.done == progress.total
        assert progress.event_seconds is not None
        assert by_task[task_id].useful_s == pytest.approx(progress.event_seconds * progress.done)
    blur = CORES * REPORT_S * allocations
    assert 1.0 < by_task[first].preempted_s <= CORES * (5.0 + REPORT_S)
    assert by_task[second].preempted_s <= blur
    assert total.used_s == pytest.approx(total.useful_s + lost(total), abs=blur)
    assert total.held_s == pytest.approx(CORES * total.node_s)
    assert total.used_s <= total.held_s
    assert seconds - (START_S + REPORT_S) * allocations <= total.node_s <= seconds + 0.5 * allocations
    assert 0 < total.waiting_s < 60

    told = services.run("hpcpanda", "report", "usage", "--by", "task", "--csv")
    rows = list(csv.DictReader(io.StringIO(told.stdout)))
    assert {(row["task"], row["name"]) for row in rows} == {(str(first), "slow"), (str(second), "quick")}
    assert sum(float(row["node_s"]) for row in rows) == pytest.approx(total.node_s)
    table = services.run("hpcpanda", "report", "usage", "--by", "day").stdout
    assert table.splitlines()[-1].startswith("total")
