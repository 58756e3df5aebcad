"""A running edge tells the dispatcher why its tasks are where they are."""

from __future__ import annotations

from pathlib import Path

from support.edge import FakeDispatcher, FakeScheduler, running_edge, small_site, small_task, until

from hpcpanda.domain.exchange import SyncReply, SyncRequest
from hpcpanda.domain.site_report import TaskReason
from hpcpanda.planning.actions import Reason


class Listener(FakeDispatcher):
    """Remembers the reasons it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[TaskReason] = []

    async def sync(self, name: str, request: SyncRequest) -> SyncReply:
        self.told.extend(request.reasons or ())
        return await super().sync(name, request)


async def test_the_dispatcher_hears_why_a_task_is_where_it_is(tmp_path: Path):
    """Without anybody asking; the code is one of the planner's words."""
    dispatcher, scheduler = Listener(), FakeScheduler()
    try:
        async with running_edge(small_site(tmp_path), dispatcher, scheduler):
            task_id = dispatcher.submit(small_task(events=200))
            await until(lambda: any(said.task_id == task_id for said in dispatcher.told))
    finally:
        scheduler.kill_all()
    said = next(said for said in dispatcher.told if said.task_id == task_id)
    assert Reason(said.why.code)
    assert said.why.sentence
    assert "ready" in said.why.numbers
