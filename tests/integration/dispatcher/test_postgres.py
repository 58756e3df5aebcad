"""Several dispatchers over one PostgreSQL: what they do at the same time, and when connections are lost."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from support.dispatcher import running_dispatcher, spec
from support.postgres import (
    PostgresServer,
    empty_postgres_url,  # noqa: F401 - fixture
    postgres_server,  # noqa: F401
    postgres_url,  # noqa: F401
)

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.dispatcher.clock import FollowingClock
from hpcpanda.dispatcher.doctor import check_accounts
from hpcpanda.dispatcher.retrying import again_on_contention
from hpcpanda.dispatcher.store.database import Contention
from hpcpanda.dispatcher.store.postgres import PostgresDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.terms import Terms
from hpcpanda.dispatcher.usecases.acquire import acquire_work
from hpcpanda.dispatcher.usecases.edges import register_edge
from hpcpanda.dispatcher.usecases.expiry import beat, sweep
from hpcpanda.dispatcher.usecases.sync import sync_edge
from hpcpanda.dispatcher.usecases.tasks import get_task, submit_task
from hpcpanda.domain.errors import InvalidValue, Unavailable
from hpcpanda.domain.exchange import Capacity, EdgeRegistration, LeaseCommit, LeaseReturn, SyncRequest
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.states import TaskState

NOW = 1e9
TERMS = Terms(lease_seconds=100)


@pytest.fixture
async def replicas(postgres_url: str) -> AsyncIterator[list[PostgresDatabase]]:  # noqa: F811
    """Two dispatchers' databases: the same one."""
    made = [PostgresDatabase(postgres_url, connections=6) for _ in range(2)]
    yield made
    for database in made:
        await database.close()


async def register(store: Store, *names: str) -> None:
    for name in names:
        registration = EdgeRegistration(instance=name, cores=8)
        await register_edge(store.writing(), name=name, registration=registration, terms=TERMS, now=NOW)


async def submit(store: Store, events: int) -> int:
    task = await submit_task(store.writing(), spec=spec(events), owner="ada", idempotency_key=None, now=NOW)
    return task.task_id


# ---- at the same time ----


class Crowd:
    """Edges that do everything at once over several replicas, in wild orders, while time passes."""

    def __init__(self, stores: list[Store]) -> None:
        self.stores = stores
        self.accepted: list[tuple[int, IntervalSet]] = []
        self.contended: list[str] = []
        self.now = NOW

    async def again(self, act):
        async def noted():
            try:
                return await act()
            except Contention as problem:
                self.contended.append(str(problem.__cause__))
                raise

        return await again_on_contention(noted)

    async def work(self, number: int) -> None:
        """Lease, commit some, return some, forget some, until there has been nothing for a while."""
        name, dice = f"e{number}", random.Random(number)
        held: dict[tuple[int, int], IntervalSet] = {}
        idle = 0
        while idle < 15:
            held |= await self._lease(number, dice.randrange(1, 12))
            idle = 0 if held else idle + 1
            keys = dice.sample(sorted(held), len(held))
            commits, returns = [], []
            for task_id, epoch in keys:
                share, rest = held[task_id, epoch].take(dice.randrange(1, 9))
                commits.append(LeaseCommit(task_id=task_id, epoch=epoch, done=share, core_seconds=1.0))
                if dice.random() < 0.3:
                    returns.append(LeaseReturn(task_id=task_id, epoch=epoch, events=rest))
                    rest = EMPTY
                held[task_id, epoch] = rest
            held = {key: rest for key, rest in held.items() if rest and dice.random() < 0.9}
            await self._sync(
                number,
                SyncRequest(instance=name, commits=tuple(commits), returns=tuple(returns), renew=tuple(keys)),
            )

    async def let_time_pass(self) -> None:
        """So fast that leases which are not renewed end; on the one replica and the other."""
        while True:
            self.now += 30
            await self.again(lambda: beat(self.stores[0].writing(), lease_seconds=1e9, now=self.now - 1))
            await self.again(lambda: sweep(self.stores[1].writing(), now=self.now))
            await asyncio.sleep(0.02)

    async def _lease(self, number: int, cores: int) -> dict[tuple[int, int], IntervalSet]:
        name, store = f"e{number}", self.stores[number % 2]
        capacity = Capacity(instance=name, cores=cores, seconds=1.0)
        grants = await self.again(
            lambda: acquire_work(store.writing(), edge=name, capacity=capacity, terms=TERMS, now=self.now)
        )
        return {(grant.task_id, grant.epoch): grant.events for grant in grants.leases}

    async def _sync(self, number: int, request: SyncRequest) -> None:
        name, store = f"e{number}", self.stores[number % 2]
        reply, _ = await self.again(
            lambda: sync_edge(store.writing(), edge=name, request=request, terms=TERMS, now=self.now)
        )
        self.accepted.extend((c.task_id, c.accepted) for c in reply.commits)


async def test_edges_that_do_everything_at_once_break_nothing(replicas: list[PostgresDatabase]) -> None:
    """Eight edges over two replicas lease, commit, return in wild orders of tasks while leases are swept: no deadlock
    happens, every event is accepted once, and every account holds."""
    edges, tasks, events = 8, 5, 60
    crowd = Crowd([Store(database) for database in replicas])
    await register(crowd.stores[0], *(f"e{i}" for i in range(edges)))
    task_ids = [await submit(crowd.stores[0], events) for _ in range(tasks)]
    await beat(crowd.stores[0].writing(), lease_seconds=100, now=NOW)
    passing = asyncio.create_task(crowd.let_time_pass())
    await asyncio.wait_for(asyncio.gather(*(crowd.work(number) for number in range(edges))), 60)
    passing.cancel()
    assert not crowd.contended, crowd.contended[0]
    for task_id in task_ids:
        task = await get_task(crowd.stores[0].reading(), task_id=task_id, now=NOW)
        assert task.state is TaskState.MERGING, task
        mine = [events for t, events in crowd.accepted if t == task_id]
        assert sum(map(len, mine)) == events, "an event was accepted twice, or never"
    assert await check_accounts(replicas[0]) == []


async def test_a_held_task_is_passed_over_and_waited_for_when_it_is_the_only_one(
    replicas: list[PostgresDatabase],
) -> None:
    """While a transaction holds the first task, the second is leased; when there is no other, its end is waited for."""
    store, other = Store(replicas[0]), Store(replicas[1])
    await register(store, "a")
    first = await submit(store, 10)

    async def ask() -> list[int]:
        capacity = Capacity(instance="a", cores=1, seconds=1.0)
        grants = await acquire_work(store.writing(), edge="a", capacity=capacity, terms=TERMS, now=NOW)
        return [grant.task_id for grant in grants.leases]

    async with other.writing() as uow:
        await uow.accounts.get(first)
        asking = asyncio.create_task(ask())
        await asyncio.sleep(0.3)
        assert not asking.done()
    assert await asking == [first]
    second = await submit(store, 10)
    async with other.writing() as uow:
        await uow.accounts.get(first)
        assert await ask() == [second]


async def test_reading_waits_for_no_writer(replicas: list[PostgresDatabase]) -> None:
    """A task is shown as it was committed last while somebody changes it."""
    store = Store(replicas[0])
    task_id = await submit(store, 10)
    async with Store(replicas[1]).writing() as uow:
        account = await uow.accounts.get(task_id)
        account.message = "changing"
        await uow.accounts.save([account])
        task = await asyncio.wait_for(get_task(store.reading(), task_id=task_id, now=NOW), 5)
    assert task.message is None


async def test_the_same_submission_at_two_replicas_is_one_task(replicas: list[PostgresDatabase]) -> None:
    """Twenty at the same moment with one key: one task, and nobody is told otherwise."""

    async def one(number: int) -> int:
        store = Store(replicas[number % 2])
        task = await again_on_contention(
            lambda: submit_task(store.writing(), spec=spec(10), owner="ada", idempotency_key="key", now=NOW)
        )
        return task.task_id

    assert len(set(await asyncio.gather(*(one(number) for number in range(20))))) == 1


async def test_a_deadlock_is_told_as_contention_and_done_again(replicas: list[PostgresDatabase]) -> None:
    """Two transactions that break the order of locks: one is undone, does it again, and both succeed."""
    stores = [Store(database) for database in replicas]
    tasks = [await submit(stores[0], 10) for _ in range(2)]
    attempts = [0, 0]
    both = asyncio.Barrier(2)

    async def cross(number: int) -> None:
        attempts[number] += 1
        async with stores[number].writing() as uow:
            await uow.accounts.get(tasks[number])
            if attempts[number] == 1:
                await both.wait()
            account = await uow.accounts.get(tasks[1 - number])
            account.priority += 1
            account.rate += 1
            await uow.accounts.save([account])

    await asyncio.gather(*(again_on_contention(lambda n=n: cross(n)) for n in range(2)))
    assert sorted(attempts) == [1, 2]


# ---- replicas ----


@pytest.fixture
def two(tmp_path: Path, postgres_url: str) -> Iterator[list[DispatcherClient]]:  # noqa: F811
    """Clients of two running dispatchers over one database, as one user."""
    with ExitStack() as stack:
        running = [
            stack.enter_context(running_dispatcher(tmp_path / f"state{i}", database=postgres_url))
            for i in range(2)
        ]
        token = running[0].user_token
        yield [stack.enter_context(DispatcherClient(each.url, token)) for each in running] + [
            stack.enter_context(DispatcherClient(each.url, running[0].edge_token())) for each in running
        ]


def test_replicas_work_as_one(two: list[DispatcherClient]) -> None:
    """An edge that waits at one replica is woken by a submission at the other, and commits what it got there at the
    first; tokens made at one are good at both."""
    user_a, user_b, edge_a, edge_b = two
    edge_a.register_edge("local", EdgeRegistration(instance="local-1", cores=8))
    user_a.submit(
        spec(1)
    )  # models are compiled now: CPython 3.11 does that wrongly in several threads at once
    assert edge_b.acquire("local", Capacity(instance="local-1", cores=8, seconds=10.0)).leases
    answers: list[tuple[float, int]] = []

    def wait_for_work() -> None:
        capacity = Capacity(instance="local-1", cores=8, seconds=10.0, wait_s=30.0)
        grants = edge_b.acquire("local", capacity)
        answers.append((time.monotonic(), grants.leases[0].epoch))

    waiting = threading.Thread(target=wait_for_work)
    waiting.start()
    time.sleep(1.0)
    began = time.monotonic()
    task_id = user_a.submit(spec(10)).task_id
    waiting.join()
    (woken, epoch) = answers[0]
    assert woken - began < 20.0  # of the thirty that it would have waited
    update = LeaseCommit(task_id=task_id, epoch=epoch, done=IntervalSet.span(0, 10))
    reply = edge_a.sync("local", SyncRequest(instance="local-1", commits=(update,)))
    assert reply.commits[0].accepted == IntervalSet.span(0, 10)
    assert user_b.task(task_id).progress.done == 10


async def test_a_replica_that_starts_prolongs_no_lease(replicas: list[PostgresDatabase]) -> None:
    """While another one is there, leases keep their ends; when none was there for half a minute, they get a full life,
    and until then nobody ends them."""
    store = Store(replicas[0])
    await register(store, "a")
    await submit(store, 10)
    capacity = Capacity(instance="a", cores=1, seconds=1.0)
    await beat(store.writing(), lease_seconds=100, now=NOW)
    await acquire_work(store.writing(), edge="a", capacity=capacity, terms=TERMS, now=NOW)

    async def ends() -> list[float]:
        async with replicas[0].read() as connection:
            return list((await connection.execute(text("SELECT expires FROM leases"))).scalars())

    assert not await beat(Store(replicas[1]).writing(), lease_seconds=100, now=NOW + 20)
    assert await ends() == [NOW + 100]
    assert await sweep(store.writing(), now=NOW + 500) == 0, "ended though nobody could renew"
    assert await beat(Store(replicas[1]).writing(), lease_seconds=100, now=NOW + 500)
    assert await ends() == [NOW + 600]
    assert await beat(store.writing(), lease_seconds=100, now=NOW + 2), "the clock was set back"
    assert await ends() == [NOW + 102]
    await beat(store.writing(), lease_seconds=100, now=NOW + 30)
    for seconds in (60, 90, 110):
        await beat(store.writing(), lease_seconds=100, now=NOW + seconds)
    assert await sweep(store.writing(), now=NOW + 111) == 1


async def test_replicas_with_wrong_clocks_agree(replicas: list[PostgresDatabase]) -> None:
    """Two machines an hour apart go by the database's clock, to a few hundredths of a second."""
    clocks = [FollowingClock(), FollowingClock()]
    clocks[0]._origin += 3600
    for clock, database in zip(clocks, replicas, strict=True):
        await clock.follow(database.time)
        await clock.follow(database.time)
    assert abs(clocks[0]() - clocks[1]()) < 0.5
    assert abs(clocks[0]() - time.time()) < 1.0


async def test_replicas_that_start_together_make_one_schema(empty_postgres_url: str) -> None:  # noqa: F811
    """Four at once over an empty database: all succeed."""
    databases = [PostgresDatabase(empty_postgres_url, connections=1) for _ in range(4)]
    await asyncio.gather(*(database.migrate() for database in databases))
    assert await submit(Store(databases[3]), 10) == 1
    for database in databases:
        await database.close()


# ---- connections ----


async def test_lost_connections_are_made_again(
    replicas: list[PostgresDatabase],
    postgres_server: PostgresServer,  # noqa: F811
) -> None:
    """Every connection is cut by the server: the next requests do not notice; notes are carried again."""
    database = replicas[0]
    store = Store(database)
    task_id = await submit(store, 10)
    wire = database.wire()
    sender = replicas[1].wire()
    heard: list[str] = []
    wire.listen("test", heard.append)
    await wire.open()
    await sender.open()
    postgres_server.execute(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'hpcpanda%'",
    )
    assert (await get_task(store.reading(), task_id=task_id, now=NOW)).task_id == task_id
    deadline = time.monotonic() + 20
    while "hello" not in heard and time.monotonic() < deadline:
        sender.send("test", "hello")
        await asyncio.sleep(0.2)
    assert "hello" in heard
    assert "" in heard, "nobody was told that notes may have been missed"
    await wire.close()
    await sender.close()


@pytest.mark.parametrize("address", ["postgresql://user:hidden@[::1", "host=a hidden", "mysql://a/hidden"])
def test_a_wrong_address_is_told_without_its_password(address: str) -> None:
    """The message names the variable, never what is in it."""
    with pytest.raises(InvalidValue, match="HPCPANDA_DISPATCHER_DATABASE") as caught:
        PostgresDatabase(address)
    assert "hidden" not in str(caught.value)


async def test_a_server_that_is_not_there_is_told_in_a_line() -> None:
    """Where, what, and not the password."""
    database = PostgresDatabase("postgresql://user:hidden@127.0.0.1:1/name")
    with pytest.raises(
        Unavailable, match=r"PostgreSQL database name at 127.0.0.1 port 1 cannot be used now"
    ) as caught:
        await database.migrate()
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)
