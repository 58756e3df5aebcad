"""Bodies without end, connections that dribble, and messages of a million pieces: the dispatcher's memory stays bounded,
and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Self
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from support.dispatcher import RunningDispatcher, running_dispatcher, spec
from uvicorn.protocols.http.h11_impl import H11Protocol

from hpcpanda.dispatcher import connections
from hpcpanda.dispatcher.bodies import SMALL
from hpcpanda.dispatcher.run import create_token
from hpcpanda.domain.exchange import Capacity, LeaseCommit, LeaseReturn, SyncRequest
from hpcpanda.domain.intervals import IntervalSet

MB = 2**20
LIMIT = 8 * MB
BOUND = 96 * MB
"""Most by which the dispatcher may grow under attack here: a body of the largest size and what is made of it."""
SECONDS = 10.0
"""Longest that anybody else waits for an answer, on a machine that is busy with other things too."""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDispatcher]:
    """A dispatcher with a small limit."""
    folder = tmp_path_factory.mktemp("dispatcher")
    with running_dispatcher(folder / "state", body_limit=LIMIT, address_rate=1e4) as running:
        yield running


class Beside:
    """A user who asks all the while, and a look at the dispatcher's memory."""

    def __init__(self, dispatcher: RunningDispatcher) -> None:
        self._dispatcher = dispatcher
        self._process = psutil.Process(dispatcher.process.pid)
        self._stop = threading.Event()
        self._answered = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._before = 0
        self.most = 0
        self.longest = 0.0
        self.answers = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._answered.wait(30)
        self._before = self._process.memory_info().rss
        return self

    def __exit__(self, *_: object) -> None:
        self._answered.clear()
        answered = self._answered.wait(30)
        self._stop.set()
        self._thread.join()
        assert answered, "nobody is answered any more"
        assert self.longest < SECONDS, f"somebody waited for {self.longest:.1f} s"
        assert self.most - self._before < BOUND, f"grown by {(self.most - self._before) / MB:.0f} MB"

    def _run(self) -> None:
        with self._dispatcher.other_user("beside") as user:
            while not self._stop.is_set():
                began = time.monotonic()
                user.tasks(limit=1)
                self.answers += 1
                self._answered.set()
                self.longest = max(self.longest, time.monotonic() - began)
                self.most = max(self.most, self._process.memory_info().rss)
                time.sleep(0.01)


def connect(dispatcher: RunningDispatcher) -> socket.socket:
    address = urlsplit(dispatcher.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def head(token: str | None, *more: str) -> bytes:
    lines = ["POST /v1/tasks HTTP/1.1", "Host: x", "Content-Type: application/json", *more]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status_of(connection: socket.socket) -> int:
    """Status of the answer that has come, or comes."""
    answer = b""
    while b"\r\n" not in answer:
        piece = connection.recv(65536)
        assert piece, "no answer"
        answer += piece
    return int(answer.split(b" ")[1])


@pytest.mark.parametrize("known", [True, False])
def test_a_body_of_100_mb_is_refused_by_its_length(target: RunningDispatcher, known: bool) -> None:
    """The answer comes before the body is read."""
    with Beside(target), connect(target) as connection:
        token = target.user_token if known else None
        connection.sendall(head(token, f"Content-Length: {100 * MB}"))
        assert status_of(connection) == 413


@pytest.mark.parametrize(("known", "status"), [(True, 413), (False, 401)])
def test_a_body_without_end_is_read_to_the_limit(target: RunningDispatcher, known: bool, status: int) -> None:
    """A chunked body of a caller is read to the limit, of a stranger to 64 KiB; then comes the answer."""
    with Beside(target), connect(target) as connection:
        connection.sendall(head(target.user_token if known else None, "Transfer-Encoding: chunked"))
        sender = threading.Thread(target=_send_chunks, args=(connection, 100 * MB // 65536))
        sender.start()
        assert status_of(connection) == status
        connection.shutdown(socket.SHUT_RDWR)
        sender.join()


def _send_chunks(connection: socket.socket, count: int) -> None:
    with contextlib.suppress(OSError):
        for _ in range(count):
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def test_strangers_make_it_hold_little(target: RunningDispatcher) -> None:
    """Two hundred strangers announce the largest body and send a megabyte each: all are refused at once."""
    with Beside(target), contextlib.ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(connect(target))
            connection.sendall(head("hpcpanda-user-guess", f"Content-Length: {LIMIT}"))
            assert status_of(connection) == 401


def test_one_caller_holds_one_large_body(target: RunningDispatcher) -> None:
    """While one body of a caller is being read, a second that would make more than the largest is 429; when the first is
    given up, there is room again."""
    token = target.user_token
    with Beside(target):
        with connect(target) as first, connect(target) as second:
            first.sendall(head(token, f"Content-Length: {LIMIT - SMALL}") + b"x" * 100_000)
            time.sleep(0.5)
            second.sendall(head(token, f"Content-Length: {4 * SMALL}"))
            assert status_of(second) == 429
        with connect(target) as third:
            third.sendall(head(token, f"Content-Length: {4 * SMALL}") + b"x" * 4 * SMALL)
            assert status_of(third) == 422


def test_large_bodies_count_as_many_requests(target: RunningDispatcher) -> None:
    """A caller who sends megabytes is held back like one who sends many requests, and only that one."""
    headers = {"Authorization": f"Bearer {create_token(target.settings, 'user', 'big')}"}
    headers["Content-Type"] = "application/json"
    body = b"x" * (LIMIT - 1)
    with httpx2.Client(base_url=target.url, headers=headers, timeout=60) as client, target.user() as user:
        answers = [client.post("/v1/tasks", content=body).status_code for _ in range(12)]
        assert user.whoami().name == "local"
    assert answers[0] == 422
    assert 429 in answers, "twelve bodies of 8 MB are as much as 6000 requests"


def test_many_silent_connections_keep_nobody_out(target: RunningDispatcher) -> None:
    """Three hundred connections that say nothing, or half a head: others are answered."""
    with Beside(target) as beside, contextlib.ExitStack() as stack:
        for number in range(300):
            connection = stack.enter_context(connect(target))
            if number % 2:
                connection.sendall(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-")
        asked = beside.answers
        deadline = time.monotonic() + 30
        while beside.answers < asked + 20:
            assert time.monotonic() < deadline
            time.sleep(0.05)


# ---- a million pieces ----


def scattered(first: int, pieces: int) -> IntervalSet:
    """Every second event."""
    return IntervalSet(tuple(bound for i in range(pieces) for bound in (first + 2 * i, first + 2 * i + 1)))


def test_a_lease_is_not_cut_into_a_million_pieces(target: RunningDispatcher) -> None:
    """Commits and returns that would scatter a lease over hundreds of thousands of rows and bounds are refused and change
    nothing; the lease goes on, and what it costs to keep does not grow."""
    with target.user() as user, target.edge() as edge:
        task_id = user.submit(spec(2_000_000, event_seconds=0.001)).task_id
        capacity = Capacity(instance="local-1", cores=100, seconds=30.0, task_id=task_id)
        (grant,) = edge.acquire("local", capacity).leases
        many = scattered(0, 300_000)
        with Beside(target):
            commit = LeaseCommit(task_id=task_id, epoch=grant.epoch, done=many, core_seconds=1.0)
            reply = edge.sync("local", SyncRequest(instance="local-1", commits=(commit,)))
            assert not reply.commits[0].accepted
            assert reply.commits[0].refused == many
            giving = LeaseReturn(task_id=task_id, epoch=grant.epoch, events=many)
            edge.sync("local", SyncRequest(instance="local-1", returns=(giving,)))
        progress = user.task(task_id).progress
        assert (progress.done, progress.leased, progress.ready) == (0, 2_000_000, 0)
        few = scattered(0, 1000)
        commit = LeaseCommit(task_id=task_id, epoch=grant.epoch, done=few, core_seconds=1.0)
        giving = LeaseReturn(task_id=task_id, epoch=grant.epoch, events=scattered(3000, 1000))
        edge.sync("local", SyncRequest(instance="local-1", commits=(commit,), returns=(giving,)))
        progress = user.task(task_id).progress
        assert (progress.done, progress.leased, progress.ready) == (1000, 1_998_000, 1000)
        user.cancel(task_id)


def test_a_task_of_a_million_files_is_told_what_to_do(target: RunningDispatcher) -> None:
    """It is more than a body may hold: the answer says so."""
    files = ",".join(f'{{"path":"/data/{n}.root","events":1000}}' for n in range(1_000_000))
    body = f'{{"name":"many","payload":{{"call":"a:b"}},"output":{{"file":"o.h5"}},"inputs":{{"files":[{files}]}}}}'
    headers = {"Authorization": f"Bearer {target.user_token}", "Content-Type": "application/json"}
    with Beside(target):
        answer = httpx2.post(f"{target.url}/v1/tasks", content=body.encode(), headers=headers, timeout=60)
    assert answer.status_code == 413
    assert f"larger than {LIMIT} bytes" in answer.json()["detail"]


def test_large_tasks_make_short_pages(target: RunningDispatcher) -> None:
    """A listing of tasks whose specifications are megabytes is given in pages of some megabytes; none is left out."""
    settings = {f"s{number}": "x" * 1000 for number in range(3000)}
    with target.other_user("large") as user, Beside(target):
        name = f"large-{time.monotonic_ns()}"
        large = spec(1, name=name)
        large = replace(large, payload=replace(large.payload, settings=settings))  # type: ignore[arg-type]
        ids = {user.submit(large).task_id for _ in range(5)}
        found: list[int] = []
        pages, after = 0, None
        while pages == 0 or after is not None:
            page = user.tasks(name=name, after=after, limit=1000)
            found += [task.task_id for task in page.tasks]
            pages, after = pages + 1, page.next_after
    assert sorted(found) == sorted(ids)
    assert pages == 3


# ---- slowness ----


@pytest.fixture(params=["as served", "h11"])
def hurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server with half a second of patience, in the event loop that the dispatcher has, with the parser that
    it has and with the other one; its only app takes the body and thinks for more than a second."""
    kind = connections.ImpatientHttp
    if request.param == "h11":
        kind = type("ImpatientH11", (connections._Impatient, H11Protocol), {})
    monkeypatch.setattr(connections, "PATIENCE_SECONDS", 0.5)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/refused":
            await send({"type": "http.response.start", "status": 413, "headers": []})
            await send({"type": "http.response.body", "body": b"no"})
            return
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            size, more = size + len(message["body"]), message["more_body"]
        await asyncio.sleep(1.2 if scope["path"] == "/slow" else 0.0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})

    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, http=kind)
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = threading.Thread(target=server.run, args=([listener],))
        serving.start()
        while not server.started:
            time.sleep(0.01)
        yield int(listener.getsockname()[1])
        server.should_exit = True
        serving.join()


async def dribble(port: int, start: bytes, drop: bytes, every_s: float) -> float:
    """Send a beginning, then drop after drop until the connection is cut; gives how long that took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    writer.write(start)
    answer = asyncio.create_task(reader.read())
    with contextlib.suppress(ConnectionError):
        while not answer.done() and time.monotonic() - began < 20:
            writer.write(drop)
            await asyncio.sleep(every_s)
    writer.close()
    with contextlib.suppress(ConnectionError):
        assert await answer == b""
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b""),
        (b"POST / HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
    ids=["silence", "head", "body", "chunks"],
)
async def test_what_dribbles_is_cut_off(hurried: int, start: bytes, drop: bytes) -> None:
    """A connection that says nothing, a head or a body of which a few bytes come at a time."""
    assert 0.4 < await dribble(hurried, start, drop, 0.1) < 15


async def test_a_head_without_end_is_cut_off(hurried: int) -> None:
    """However fast it comes."""
    start = b"GET / HTTP/1.1\r\nHost: x\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", hurried)
    writer.write(start)
    sent = 0
    with contextlib.suppress(ConnectionError):
        while not reader.at_eof() and sent < 4 * MB:
            writer.write(b"X: " + b"y" * 1000 + b"\r\n")
            sent += 1005
            await writer.drain()
            await asyncio.sleep(0)
    assert sent < MB
    writer.close()


async def test_a_refusal_is_read_by_those_who_send_first(hurried: int) -> None:
    """What comes after the answer is thrown away for a while, so that the answer is not lost; a request on the same
    connection is answered; then a head without end is cut off as ever."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hurried)
    writer.write(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000)
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.write(b"x" * 500_000 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    answers = await asyncio.wait_for(reader.readuntil(b"no"), 20)
    answers += await asyncio.wait_for(reader.readuntil(b"HTTP/1.1 200"), 20)
    assert answers.startswith(b"HTTP/1.1 413")
    with contextlib.suppress(ConnectionError):
        for _ in range(4000):
            writer.write(b"X: " + b"y" * 1000 + b"\r\n")
            await writer.drain()
        await asyncio.wait_for(reader.read(), 20)
    writer.close()


async def test_what_comes_steadily_is_let_in(hurried: int) -> None:
    """A body that takes twice as long as patience lasts, and an answer that does, are not cut off; nor is a second
    request on the same connection, if it comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", hurried)
    for path in ("/", "/slow"):
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 80000\r\n\r\n".encode())
        for _ in range(10):
            writer.write(b"x" * 8000)
            await asyncio.sleep(0.1)
        answer = await asyncio.wait_for(reader.readuntil(b"80000"), 20)
        assert answer.startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"\r\n0\r\n\r\n") if b"chunked" in answer else None
    writer.write(b"GET / HT")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 15) == b"", "a second head may not dribble either"
    writer.close()
