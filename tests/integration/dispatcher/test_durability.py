"""What was acknowledged is still true after the process is killed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import httpx2
from benchmarks.dispatcher.small_calls import small_task
from support.dispatcher import running_dispatcher, spec, start_dispatcher

from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.exchange import Capacity, LeaseCommit, SyncRequest
from hpcpanda.domain.intervals import EMPTY, IntervalSet


def test_acknowledged_commits_survive_sigkill(tmp_path: Path) -> None:
    """SIGKILL in a stream of commits loses none that was answered, and the lease lives on after a restart."""
    state = tmp_path / "state"
    dispatcher = start_dispatcher(state)
    acknowledged = EMPTY
    enough = threading.Event()

    def kill_when_enough() -> None:
        enough.wait(60)
        dispatcher.kill()

    killer = threading.Thread(target=kill_when_enough)
    killer.start()
    with dispatcher.user() as user, dispatcher.edge() as edge:
        task_id = user.submit(spec(10**6)).task_id
        capacity = Capacity(instance="local-1", cores=1, seconds=1e6)
        (grant,) = edge.acquire("local", capacity).leases
        try:
            for first in range(0, 10**6, 2):
                done = IntervalSet.span(first, first + 1)
                update = LeaseCommit(task_id=task_id, epoch=grant.epoch, done=done)
                reply = edge.sync("local", SyncRequest(instance="local-1", commits=(update,)))
                acknowledged |= reply.commits[0].accepted
                if len(acknowledged) == 50:
                    enough.set()
        except Unavailable:
            pass
    killer.join()
    assert dispatcher.process.stdout is not None
    dispatcher.process.stdout.close()

    with running_dispatcher(state) as again, again.user() as user, again.edge() as edge:
        kept = user.task(task_id).progress.done
        assert len(acknowledged) <= kept <= len(acknowledged) + 1
        request = SyncRequest(
            instance="local-1",
            renew=((task_id, grant.epoch),),
            commits=(LeaseCommit(task_id=task_id, epoch=grant.epoch, done=acknowledged),),
        )
        reply = edge.sync("local", request)
        assert reply.commits[0].accepted == acknowledged
        assert reply.lost == ()
        assert user.task(task_id).progress.done == kept


async def test_what_many_write_at_once_survives_sigkill(tmp_path: Path) -> None:
    """SIGKILL while forty users' requests submit tasks, whose commits are shared: none was refused before, each of them had
    some of its tasks taken, and every task that was acknowledged is there after a restart."""
    state = tmp_path / "state"
    dispatcher = start_dispatcher(state, caller_rate=1e6)
    acknowledged: dict[int, list[int]] = {n: [] for n in range(40)}
    enough = asyncio.Event()

    async def submit(client: httpx2.AsyncClient, n: int) -> None:
        while True:
            try:
                answer = await client.post("/v1/tasks", json=small_task("small", jobs=10))
            except httpx2.TransportError:
                assert enough.is_set(), "not answered"
                return
            assert answer.status_code == 201, answer.text
            acknowledged[n].append(answer.json()["task_id"])
            if all(len(mine) >= 3 for mine in acknowledged.values()):
                enough.set()

    headers = {"Authorization": f"Bearer {dispatcher.user_token}"}
    async with httpx2.AsyncClient(base_url=dispatcher.url, headers=headers, timeout=60) as client:
        submitting = [asyncio.create_task(submit(client, n)) for n in acknowledged]
        async with asyncio.timeout(120):
            await enough.wait()
            await asyncio.to_thread(dispatcher.kill)
            await asyncio.gather(*submitting)
    assert dispatcher.process.stdout is not None
    dispatcher.process.stdout.close()

    told = {task_id for mine in acknowledged.values() for task_id in mine}
    with running_dispatcher(state) as again, sqlite3.connect(again.settings.database_file) as file:
        there = {task_id for (task_id,) in file.execute("SELECT task_id FROM tasks WHERE ready = 10")}
    file.close()
    assert told <= there
    assert len(there - told) <= len(acknowledged)


def test_a_dispatcher_that_was_away_punishes_nobody(tmp_path: Path) -> None:
    """Leases that ran out while the dispatcher was down get a full life from its start."""
    state = tmp_path / "state"
    with (
        running_dispatcher(state, lease_seconds=0.01, sweep_seconds=3600) as dispatcher,
        dispatcher.user() as user,
        dispatcher.edge() as edge,
    ):
        task_id = user.submit(spec(10)).task_id
        (grant,) = edge.acquire("local", Capacity(instance="local-1", cores=1, seconds=10)).leases
    with running_dispatcher(state) as again, again.user() as user, again.edge() as edge:
        assert edge.acquire("local", Capacity(instance="local-1", cores=1, seconds=10)).leases == ()
        (info,) = user.explain(task_id).leases
        assert (info.epoch, round(info.expires_in_s, -1)) == (grant.epoch, 300)
