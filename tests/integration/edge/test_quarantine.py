"""A running edge takes up which nodes are in quarantine, and asks for allocations without them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hpcpanda_edge.ports import AllocationJob
from support.edge import FakeDispatcher, FakeScheduler, running_edge, small_site, small_task, until

from hpcpanda.allocation.node_quarantine import quarantined
from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.exchange import SyncReply, SyncRequest
from hpcpanda.domain.failures import NodeQuarantine
from hpcpanda.domain.states import TaskState

N7 = NodeQuarantine(node="n7", until=1e11, why="Uncorrectable ECC.")


class Telling(FakeDispatcher):
    """A dispatcher that tells of a bad node with every answer."""

    async def sync(self, name: str, request: SyncRequest) -> SyncReply:
        return replace(await super().sync(name, request), nodes=(N7,))


class Picky(FakeScheduler):
    """A batch system that notes which nodes it was asked to leave out, and refuses that at first."""

    def __init__(self) -> None:
        super().__init__()
        self.avoided: list[tuple[str, ...]] = []

    def submit(self, job: AllocationJob) -> str:
        self.avoided.append(job.avoid)
        if job.avoid:
            raise SchedulerFailed("Invalid node name specified")
        return super().submit(job)


@pytest.fixture
def scheduler() -> Iterator[Picky]:
    fake = Picky()
    yield fake
    fake.kill_all()


async def test_allocations_are_asked_for_without_bad_nodes(tmp_path: Path, scheduler: Picky) -> None:
    """What the dispatcher says is in the spool before work is handed out; and a batch system that does not take it is asked
    without it the next time, so that the task is done all the same."""
    site = small_site(tmp_path)
    site = replace(site, nodes=replace(site.nodes, count=8))
    dispatcher = Telling()
    async with running_edge(site, dispatcher, scheduler):
        await until(lambda: quarantined(Spool(tmp_path), time.time()))
        task = dispatcher.tasks[dispatcher.submit(small_task(1))]
        await until(lambda: task.state is TaskState.DONE)
    assert scheduler.avoided[0] == ("n7",)
    assert () in scheduler.avoided
