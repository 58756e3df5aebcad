"""What is left when PostgreSQL is killed in the midst of work."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import httpx2
from support.dispatcher import RunningDispatcher, running_dispatcher, spec
from support.postgres import TEMPLATE, running_server

from hpcpanda.dispatcher.doctor import check_accounts
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.domain.errors import HpcPandaError, Unavailable
from hpcpanda.domain.exchange import Capacity, LeaseCommit, SyncRequest
from hpcpanda.domain.intervals import EMPTY, IntervalSet


class Stream:
    """One edge that commits its lease three events at a time, again and again until it is answered."""

    def __init__(self, dispatcher: RunningDispatcher, number: int, task_id: int, events: int) -> None:
        self.name = f"e{number}"
        self.client = dispatcher.edge(self.name)
        capacity = Capacity(instance=f"{self.name}-1", cores=events, seconds=1.0)
        (grant,) = self.client.acquire(self.name, capacity).leases
        assert grant.task_id == task_id
        self.grant = grant
        self.acknowledged = EMPTY
        self.refusals: list[str] = []
        self.wrong: list[str] = []
        self.commit(
            EMPTY
        )  # pydantic compiles its models at first use, which CPython 3.11 does wrongly in several threads

    def commit(self, done: IntervalSet) -> IntervalSet:
        update = LeaseCommit(task_id=self.grant.task_id, epoch=self.grant.epoch, done=done, core_seconds=2.0)
        reply = self.client.sync(self.name, SyncRequest(instance=f"{self.name}-1", commits=(update,)))
        return reply.commits[0].accepted

    def run(self, stop: threading.Event) -> None:
        start, end = self.grant.events.bounds[0], self.grant.events.bounds[-1]
        for first in range(start, end - 2, 3):
            done = IntervalSet.span(first, first + 2)
            while not stop.is_set() and not self._once(done):
                time.sleep(0.05)

    def _once(self, done: IntervalSet) -> bool:
        try:
            accepted = self.commit(done)
        except HpcPandaError as problem:
            (self.refusals if isinstance(problem, Unavailable) else self.wrong).append(repr(problem))
            return False
        if accepted != done:
            self.wrong.append(f"{done} was sent, {accepted} accepted")
        self.acknowledged |= accepted
        return True


def test_a_server_killed_in_mid_commit_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL of all of PostgreSQL, three times, in a stream of commits from four edges: while it is away answers are 503
    with Retry-After; every commit acknowledged is on record, none is counted twice, and repeats are answered alike."""
    edges, events = 4, 4000
    with running_server() as server:
        server.execute("postgres", f"CREATE DATABASE {TEMPLATE}")
        with (
            running_dispatcher(tmp_path / "state", database=server.url(TEMPLATE)) as dispatcher,
            dispatcher.user() as user,
        ):
            task_id = user.submit(spec(edges * events)).task_id
            streams = [Stream(dispatcher, number, task_id, events) for number in range(edges)]
            stop = threading.Event()
            threads = [threading.Thread(target=stream.run, args=(stop,)) for stream in streams]
            for thread in threads:
                thread.start()
            for _ in range(3):
                time.sleep(0.7)
                server.kill()
                answer = httpx2.get(f"{dispatcher.url}/v1/health", timeout=30)
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) > 0
                server.start()
            time.sleep(0.7)
            stop.set()
            for thread in threads:
                thread.join()
            assert [wrong for stream in streams for wrong in stream.wrong] == []
            assert any(stream.refusals for stream in streams), "nobody noticed the kills"
            sent = sum(len(stream.acknowledged) for stream in streams)
            done = user.task(task_id).progress.done
            assert sent > 50
            assert sent <= done <= sent + 2 * edges, "lost or counted twice"
            for stream in streams:
                assert stream.commit(stream.acknowledged) == stream.acknowledged
                stream.client.close()
            progress = user.task(task_id).progress
            assert (progress.done, progress.done + progress.leased) == (done, edges * events)
        assert asyncio.run(accounts_at(server.url(TEMPLATE))) == []


async def accounts_at(url: str) -> list[str]:
    """What is wrong in a database."""
    database = PostgresDatabase(url)
    problems = await check_accounts(database)
    await database.close()
    return problems
