"""The change stream's parts: who hears what, what is bounded, and how a client takes it up again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
from starlette.types import Message
from support.dispatcher import spec

from hpcpanda.client.stream import Beat, Everything, Resumption
from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.reports import changes as hub_module
from hpcpanda.dispatcher.reports import stream as stream_module
from hpcpanda.dispatcher.reports.changes import MAX_HELD, MAX_STREAMS_EACH, Changes, Listener
from hpcpanda.dispatcher.reports.metrics import Metrics
from hpcpanda.dispatcher.reports.news import News
from hpcpanda.dispatcher.reports.stream import EventStream, resume_time
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.usecases.tasks import cancel_task, submit_task
from hpcpanda.domain.changes import Change
from hpcpanda.domain.errors import NotFound, TooManyRequests, Unauthenticated, Unavailable
from hpcpanda.domain.states import TaskState

NOW = 1e9


class Hub:
    """Listeners over a real store, with notes of other replicas put in by hand."""

    def __init__(self, database: SqliteDatabase) -> None:
        self.said: list[str] = []
        self.hear = None
        self.changes = Changes(Store(database).reading, lambda: NOW, Metrics())
        self.changes.join(self)  # type: ignore[arg-type]
        self.store = Store(database, told=self.changes.told)

    def send(self, _channel: str, text: str) -> None:
        self.said.append(text)

    def listen(self, _channel: str, heard: object) -> None:
        self.hear = heard  # type: ignore[assignment]

    async def submit(self, owner: str, team: str | None = None) -> int:
        made = spec(5)
        uow = self.store.writing()
        return (
            await submit_task(uow, spec=made, owner=owner, team=team, idempotency_key=None, now=NOW)
        ).task_id

    def listener(self, stack: ExitStack, sight: Sight | None = None, *wanted: int) -> Listener:
        named = frozenset(wanted) if wanted else None
        return stack.enter_context(self.changes.listening("user:x", sight=sight, wanted=named))


async def heard(listener: Listener) -> set[int]:
    async with asyncio.timeout(20):
        await listener.any.wait()
    return {change.task_id for change in listener.take()[0]}


@pytest.fixture
async def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    monkeypatch.setattr(hub_module, "GATHER_SECONDS", 0.05)
    database = SqliteDatabase(tmp_path / "db.sqlite")
    await database.migrate()
    made = Hub(database)
    running = asyncio.create_task(made.changes.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await database.close()


async def test_everybody_hears_of_what_they_see_only(hub: Hub) -> None:
    """One's own tasks and those of one's groups; those named of them; everything, for who sees everything."""
    with ExitStack() as stack:
        ada = hub.listener(stack, Sight(name="ada", groups=frozenset({"cms"})))
        named = hub.listener(stack, Sight(name="ada", groups=frozenset()), 1, 2)
        operator = hub.listener(stack)
        ids = [await hub.submit("ada"), await hub.submit("bob", "atlas"), await hub.submit("bob", "cms")]
        assert ids == [1, 2, 3]
        seen: set[int] = set()
        while len(seen) < 3:
            seen |= await heard(operator)
        assert await heard(ada) | (set() if not ada.any.is_set() else await heard(ada)) == {1, 3}
        assert await heard(named) == {1}


async def test_a_transaction_that_failed_is_not_told_of(hub: Hub) -> None:
    """Nor one that only looked; what is told is on disk."""
    with ExitStack() as stack:
        listener = hub.listener(stack)
        with pytest.raises(NotFound):
            await cancel_task(hub.store.writing(), task_id=99, caller="ada", now=NOW)
        assert not listener.any.is_set()
        assert await hub.submit("ada") in await heard(listener)


async def test_other_replicas_are_told_and_heard(hub: Hub) -> None:
    """What is written here goes over the wire in one note; a note of theirs is looked up; an empty one, for notes that may
    have been missed, has everybody look at everything; nonsense harms nobody."""
    with ExitStack() as stack:
        listener = hub.listener(stack)
        first, second = await hub.submit("ada"), await hub.submit("ada")
        seen: set[int] = set()
        while not {first, second} <= seen:
            seen |= await heard(listener)
        assert set(" ".join(hub.said).split()) == {str(first), str(second)}
        hub.said.clear()
        hub.hear(f"{second} 77 x -3 99999999999999999999999")  # type: ignore[misc]
        assert await heard(listener) == {second}
        hub.hear("")  # type: ignore[misc]
        async with asyncio.timeout(20):
            await listener.any.wait()
        assert listener.take() == ([], True)
        assert not hub.said, "what others said is not said again"


async def test_a_database_that_is_away_delays_signals(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told when it is back."""
    monkeypatch.setattr(hub_module, "RETRY_SECONDS", 0.05)
    task_id = await hub.submit("ada")
    with ExitStack() as stack:
        listener = hub.listener(stack)
        reading, failures = hub.changes._reading, 3

        def away() -> object:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise Unavailable("away")
            return reading()

        monkeypatch.setattr(hub.changes, "_reading", away)
        hub.changes.told(News(tasks={task_id}))
        assert await heard(listener) == {task_id}


async def test_who_comes_back_is_told_what_has_changed(hub: Hub) -> None:
    """Not what was before; and when too much has, that everything is to be looked at."""
    await hub.submit("ada")
    with ExitStack() as stack:
        for since, told in ((NOW, {1}), (NOW + 31, set())):
            listener = hub.listener(stack)
            assert await hub.changes.begin(listener, since) == NOW
            assert {change.task_id for change in listener.take()[0]} == told


async def test_too_much_to_catch_up_is_everything(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand signals are the most that one who comes back is sent."""
    monkeypatch.setattr(hub_module, "MAX_AGAIN", 2)
    for _ in range(3):
        await hub.submit("ada")
    with ExitStack() as stack:
        listener = hub.listener(stack)
        for since in (NOW, 0.0):
            await hub.changes.begin(listener, since)
            assert listener.take() == ([], True)


def change(task_id: int, done: int = 0) -> Change:
    return Change(task_id=task_id, state=TaskState.RUNNING, total=9, ready=0, leased=0, done=done, failed=0)


def test_a_listener_holds_the_newest_signal_of_each_task() -> None:
    """So it is bounded by tasks, not by time; and beyond a limit it is cut."""
    listener = Listener(None, None)
    for done in range(100):
        listener.put([change(1, done), change(2)])
    assert listener.take() == ([change(1, 99), change(2)], False)
    assert not listener.any.is_set()
    listener.put([change(n) for n in range(1, MAX_HELD + 1)])
    assert not listener.ended
    listener.put([change(MAX_HELD + 1)])
    assert listener.ended
    assert listener.cut


async def fail(hub: Hub) -> None:
    with ExitStack() as stack:
        hub.listener(stack)
        raise ZeroDivisionError


async def test_places_are_limited_and_given_back(hub: Hub) -> None:
    """Also by one who fails."""
    with ExitStack() as stack:
        for _ in range(MAX_STREAMS_EACH):
            hub.listener(stack)
        with pytest.raises(TooManyRequests, match="user:x has 20 change streams"):
            hub.listener(stack)
    with pytest.raises(ZeroDivisionError):
        await fail(hub)
    assert not hub.changes._listeners


async def test_after_the_end_there_are_no_streams(hub: Hub) -> None:
    """Those open end, new ones are over before they begin."""
    with ExitStack() as stack:
        before = hub.listener(stack)
        hub.changes.close()
        assert before.ended
        assert hub.listener(stack).ended


@pytest.mark.parametrize(
    ("said", "time"),
    [
        (None, None), ("", None), (f"{NOW - 5:.3f}", NOW - 5), (f"{NOW - 90_000:.3f}", 0.0), (f"{NOW + 90:.3f}", 0.0),
        ("nan", 0.0), ("1e9", 0.0), ("٣.000", 0.0), ("-1.000", 0.0),
    ],
)  # fmt: skip
def test_a_place_to_resume_at_is_judged(said: str | None, time: float | None) -> None:
    """One of the last day is believed; any other is the beginning of time."""
    assert resume_time(said, NOW) == time


class Client:
    """The other end of a stream, by hand."""

    def __init__(self) -> None:
        self.text = ""
        self.over = False
        self.reads = asyncio.Event()
        self.reads.set()
        self.leaves = asyncio.Event()

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.text += message.get("body", b"").decode()
        self.over = message["type"] == "http.response.body" and not message["more_body"]

    def stream(self, listener: Listener, *, freed: list[int], check: object = None) -> EventStream:
        async def fine() -> None:
            pass

        stack = ExitStack()
        stack.callback(freed.append, 1)
        times = iter(range(0, 10**6, 45))
        return EventStream(
            listener, stack, begun=NOW, clock=lambda: NOW + next(times), until=None, check=check or fine  # type: ignore[arg-type]
        )  # fmt: skip


async def test_a_stream_says_what_the_standard_demands() -> None:
    """Each event has its data in one line and the place to resume at; the end of the client frees everything."""
    client, listener, freed = Client(), Listener(None, None), []
    running = asyncio.create_task(
        client.stream(listener, freed=freed)({"path": "/"}, client.receive, client.send)
    )
    listener.put([change(7)])
    while "data" not in client.text:
        await asyncio.sleep(0.01)
    blocks = client.text.split("\n\n")
    assert blocks[0] == "retry: 2000\nid: 1000000000.000"
    event, data, place = blocks[1].split("\n")
    assert event == "event: change"
    assert data.startswith('data: {"task_id":7,"state":"running"')
    assert place.startswith("id: 10000")
    client.leaves.set()
    async with asyncio.timeout(20):
        await running
    assert freed == [1]


async def test_a_token_that_was_taken_back_ends_the_stream() -> None:
    """It is looked at again every minute."""
    client, listener, freed = Client(), Listener(None, None), []
    asked: list[int] = []

    async def check() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise Unauthenticated("taken back")

    running = client.stream(listener, freed=freed, check=check)({"path": "/"}, client.receive, client.send)
    task = asyncio.create_task(running)  # type: ignore[arg-type]
    async with asyncio.timeout(20):
        while not task.done():
            listener.put([change(1)])
            await asyncio.sleep(0.01)
    assert client.over
    assert (len(asked), freed) == (2, [1])


async def test_a_client_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds nothing for longer than it may take to read."""
    monkeypatch.setattr(stream_module, "SLOW_SECONDS", 0.05)
    client, listener, freed = Client(), Listener(None, None), []
    client.reads.clear()
    scope = {"path": "/"}

    async def half(message: Message) -> None:
        if message["type"] == "http.response.body":
            await client.send(message)

    async with asyncio.timeout(20):
        await client.stream(listener, freed=freed)(scope, client.receive, half)
    assert listener.cut
    assert freed == [1]


def test_a_client_waits_longer_each_time_and_not_for_ever() -> None:
    """What does not pass by waiting is told at once; a dispatcher that is away, after the patience is out."""
    resumption = Resumption(0.0, patience_s=100.0)
    assert [resumption.pause(Unavailable("away"), 10.0) for _ in range(7)] == [0.5, 1, 2, 4, 8, 15, 15]
    with pytest.raises(Unavailable):
        resumption.pause(Unavailable("away"), 101.0)
    with pytest.raises(NotFound):
        resumption.pause(NotFound("none"), 10.0)


def test_a_client_remembers_the_place() -> None:
    """Of every event, also of kinds that it does not know; and pauses are short again."""
    resumption = Resumption(0.0, patience_s=100.0)
    assert "Last-Event-ID" not in resumption.headers
    resumption.pause(None, 0.0)
    event = httpx2.ServerSentEvent
    assert resumption.heard(event(id="1.000"), 5.0) == Beat()
    assert resumption.heard(event(event="everything", data="{}", id="2.000"), 5.0) == Everything()
    assert resumption.heard(event(event="news", data="{}", id="3.000"), 5.0) is None
    assert resumption.headers["Last-Event-ID"] == "3.000"
    assert resumption.pause(None, 5.0) == 0.5
    with pytest.raises(Unavailable, match="not understood"):
        resumption.heard(event(event="change", data='{"task_id":"x"}'), 5.0)
