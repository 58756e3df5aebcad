"""Change streams of running dispatchers: signals, resumption, ends, and that nothing is left of them."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import pytest
from support.dispatcher import RunningDispatcher, running_dispatcher, spec, start_dispatcher
from support.postgres import TEMPLATE, PostgresServer, postgres_server  # noqa: F401 - fixture

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.client.stream import Beat, Everything, Signal
from hpcpanda.client.watch import follow
from hpcpanda.dispatcher.reports.changes import MAX_STREAMS_EACH
from hpcpanda.dispatcher.run import create_token
from hpcpanda.domain.changes import Change
from hpcpanda.domain.errors import NotFound, Unavailable
from hpcpanda.domain.exchange import Capacity, LeaseReturn, SyncRequest
from hpcpanda.domain.states import TaskState

PATIENCE_S = 30.0


class Ear:
    """Follows a stream in a thread."""

    def __init__(self, client: DispatcherClient, *task_ids: int) -> None:
        self.heard: list[Signal] = []
        self._more = threading.Condition()
        self._client, self._task_ids = client, task_ids
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.until(lambda: any(isinstance(s, Beat | Change) for s in self.heard))

    def _listen(self) -> None:
        with contextlib.suppress(RuntimeError, Unavailable):  # the test is over, and has closed the client
            for said in self._client.changes(*self._task_ids, patience_s=PATIENCE_S):
                with self._more:
                    self.heard.append(said)
                    self._more.notify_all()

    def until(self, condition: object) -> None:
        with self._more:
            assert self._more.wait_for(condition, PATIENCE_S), self.heard  # type: ignore[arg-type]

    def of(self, task_id: int) -> list[Change]:
        return [s for s in self.heard if isinstance(s, Change) and s.task_id == task_id]

    def until_state(self, task_id: int, state: TaskState) -> None:
        self.until(lambda: any(c.state is state for c in self.of(task_id)))


@pytest.fixture
def ear(shared: RunningDispatcher) -> Iterator[Ear]:
    with shared.user() as client:
        yield Ear(client)


def gauge(dispatcher: RunningDispatcher, name: str) -> float:
    token = create_token(dispatcher.settings, "monitor", "prometheus")
    page = httpx2.get(f"{dispatcher.url}/metrics", headers={"Authorization": f"Bearer {token}"}).text
    (line,) = (line for line in page.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def until_open(dispatcher: RunningDispatcher, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while gauge(dispatcher, "hpcpanda_change_clients") != count:
        assert time.monotonic() < deadline, "streams are left"
        time.sleep(0.1)


def test_changes_are_told_as_they_happen(shared: RunningDispatcher, ear: Ear) -> None:
    """A new task and its end are signals with state and counts."""
    with shared.user() as user:
        task_id = user.submit(spec(17)).task_id
        ear.until_state(task_id, TaskState.READY)
        user.cancel(task_id)
        ear.until_state(task_id, TaskState.ABORTED)
    assert ear.of(task_id)[0] == Change(
        task_id=task_id, state=TaskState.READY, total=17, ready=17, leased=0, done=0, failed=0
    )


def test_a_stream_of_named_tasks_tells_of_those_only(shared: RunningDispatcher) -> None:
    """Of those at once, as they are; of others never; a task that is not there is not found."""
    with shared.user() as user:
        mine, other = (user.submit(spec(5)).task_id for _ in range(2))
        ear = Ear(user, mine)
        assert [s for s in ear.heard if not isinstance(s, Beat)] == ear.of(mine)
        user.cancel(other)
        user.cancel(mine)
        ear.until_state(mine, TaskState.ABORTED)
        assert not ear.of(other)
        with pytest.raises(NotFound, match="none of these tasks"):
            next(user.changes(10**9))


def test_a_busy_task_is_told_of_a_few_times_a_second(shared: RunningDispatcher, ear: Ear) -> None:
    """Eighty changes within some seconds are a handful of signals, the last of which is right."""
    with shared.user() as user, shared.edge("busy") as edge:
        task_id = user.submit(spec(9)).task_id
        began = time.monotonic()
        for _ in range(40):
            wanted = Capacity(instance="busy-1", cores=3, seconds=1.0, task_id=task_id)
            (grant,) = edge.acquire("busy", wanted).leases
            back = LeaseReturn(task_id=task_id, epoch=grant.epoch, events=grant.events)
            edge.sync("busy", SyncRequest(instance="busy-1", returns=(back,)))
        user.cancel(task_id)
        ear.until_state(task_id, TaskState.ABORTED)
        assert len(ear.of(task_id)) <= 3 + 2 * (time.monotonic() - began)


def test_a_lost_stream_goes_on_where_it_was(shared: RunningDispatcher) -> None:
    """What changed while nobody listened is told to who comes back with the last identifier; with one that is none,
    everything is to be looked at."""
    headers = {"Authorization": f"Bearer {shared.user_token}"}

    def first(last_id: str | None) -> list[httpx2.ServerSentEvent]:
        more = headers | ({"Last-Event-ID": last_id} if last_id else {})
        found = []
        with httpx2.stream("GET", f"{shared.url}/v1/changes", headers=more, timeout=PATIENCE_S) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for event in httpx2.EventSource(answer):
                found.append(event)
                if event.data or last_id is None:
                    break
        return found

    place = first(None)[0]
    assert (place.retry, place.data) == (2000, "")
    with shared.user() as user:
        task_id = user.submit(spec(3)).task_id
    assert any(f'"task_id":{task_id},' in event.data for event in first(place.id))
    for wrong in ("nonsense", "1.000", "99999999999.000"):
        assert first(wrong)[-1].event == "everything"


def test_who_goes_leaves_nothing_behind(shared: RunningDispatcher) -> None:
    """A caller has so many streams and no more; when the clients vanish, without a word, their places are free."""
    until_open(shared, int(gauge(shared, "hpcpanda_change_clients")))
    token = create_token(shared.settings, "user", "greedy")
    host, port = shared.url.removeprefix("http://").split(":")
    request = f"GET /v1/changes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    before = gauge(shared, "hpcpanda_change_clients")
    with ExitStack() as stack:
        for _ in range(MAX_STREAMS_EACH):
            client = stack.enter_context(closing(socket.create_connection((host, int(port)))))
            client.sendall(request)
            assert b"200 OK" in client.recv(4096)
        assert gauge(shared, "hpcpanda_change_clients") == before + MAX_STREAMS_EACH
        answer = httpx2.get(f"{shared.url}/v1/changes", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 429
        assert "change streams open" in answer.json()["detail"]
        assert int(answer.headers["Retry-After"]) >= 1
    until_open(shared, int(before))


def test_a_stream_ends_with_its_token(shared: RunningDispatcher) -> None:
    """To the second, and for good."""
    token = create_token(shared.settings, "user", "brief", days=4 / 86_400)
    headers = {"Authorization": f"Bearer {token}"}
    began = time.monotonic()
    with httpx2.stream("GET", f"{shared.url}/v1/changes", headers=headers, timeout=PATIENCE_S) as answer:
        assert answer.status_code == 200
        assert len(list(httpx2.EventSource(answer))) >= 1
    assert time.monotonic() - began < 14
    assert httpx2.get(f"{shared.url}/v1/changes", headers=headers).status_code == 401


def test_streams_do_not_hold_a_dispatcher_up_and_outlive_it(tmp_path: Path) -> None:
    """SIGTERM ends open streams at once, not after the grace time; the client comes back to the next dispatcher at the
    same address by itself, and hears what has changed since."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first = start_dispatcher(tmp_path / "state", port=port, grace_seconds=60)
    try:
        with first.user() as user:
            ear = Ear(user)
            before = user.submit(spec(2)).task_id
            ear.until_state(before, TaskState.READY)
            began = time.monotonic()
            first.process.terminate()
            assert first.process.wait(50) in (0, -signal.SIGTERM)
            assert time.monotonic() - began < 30
            with running_dispatcher(tmp_path / "state", port=port) as second, second.user() as other:
                after = other.submit(spec(2)).task_id
                ear.until_state(after, TaskState.READY)
    finally:
        if first.process.poll() is None:
            first.kill()
        assert first.process.stdout is not None
        first.process.stdout.close()


def test_other_replicas_are_heard(postgres_server: PostgresServer, tmp_path: Path) -> None:  # noqa: F811
    """Who listens at one replica hears of what is done at the other, both ways."""
    url = postgres_server.create_database(TEMPLATE)
    with (
        running_dispatcher(tmp_path / "one", database=url) as one,
        running_dispatcher(tmp_path / "two", database=url) as two,
        one.user() as here,
        two.user() as there,
    ):
        ears = Ear(here), Ear(there)
        for client in (here, there):
            task_id = client.submit(spec(2)).task_id
            for ear in ears:
                ear.until(lambda e=ear, t=task_id: e.of(t) or any(isinstance(s, Everything) for s in e.heard))
                ear.until_state(task_id, TaskState.READY)


def test_watching_a_task_follows_its_stream(shared: RunningDispatcher) -> None:
    """It ends when the task does; a task that is over is told once."""
    with shared.user() as user, shared.user() as other:
        task_id = user.submit(spec(4)).task_id
        told = follow(user, task_id)
        assert next(told).state is TaskState.READY
        assert next(told).state is TaskState.READY
        assert gauge(shared, "hpcpanda_change_clients") >= 1
        other.cancel(task_id)
        assert [task.state for task in told][-1] is TaskState.ABORTED
        assert [task.state for task in follow(user, task_id)] == [TaskState.ABORTED]
