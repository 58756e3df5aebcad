"""What no request may do, whatever is in it. Run over both databases (see test_conformance)."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest
from support.dispatcher import RunningDispatcher, spec

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.exchange import Capacity, LeaseCommit, OutputFile, SyncRequest
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.states import TaskState

DOCUMENT: dict[str, Any] = {
    "name": "sand",
    "payload": {"call": "module:function"},
    "output": {"file": "out.h5"},
    "events": 10,
}
INJECTIONS = (
    "' OR '1'='1",
    "'; DROP TABLE tasks; --",
    '" OR ""="',
    "%' UNION SELECT digest FROM tokens --",
    "$1",
    ":name",
    "%(name)s",
    "{0}",
    "\\'",
    "sand' --",
)


def send(
    dispatcher: RunningDispatcher, method: str, path: str, *, edge: bool = False, **more: Any
) -> httpx2.Response:
    token = dispatcher.edge_token() if edge else dispatcher.user_token
    headers = {"Authorization": f"Bearer {token}"} | more.pop("headers", {})
    return httpx2.request(method, dispatcher.url + path, headers=headers, timeout=30, **more)


def submit(dispatcher: RunningDispatcher, body: bytes, kind: str = "application/json") -> httpx2.Response:
    return send(dispatcher, "POST", "/v1/tasks", content=body, headers={"Content-Type": kind})


def with_fields(*fields: str) -> bytes:
    return (json.dumps(DOCUMENT)[:-1] + "".join(f", {field}" for field in fields) + "}").encode()


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (json.dumps(DOCUMENT).encode("utf-16"), "application/json", 422, "utf-8"),
        (json.dumps(DOCUMENT).encode("utf-32"), "application/json", 422, "not JSON"),
        (b"\xef\xbb\xbf" + json.dumps(DOCUMENT).encode(), "application/json", 422, "BOM"),
        (with_fields('"container": "\xe9"').decode().encode("latin-1"), "application/json", 422, "utf-8"),
        (with_fields('"container": "a\\u0000b"'), "application/json", 422, "NUL"),
        (with_fields('"container": "a\x00b"'), "application/json", 422, "control character"),
        (with_fields('"\\u0000": 1'), "application/json", 422, "NUL"),
        (with_fields('"name": "other"'), "application/json", 422, "'name' is said twice"),
        (with_fields('"seed": ' + "9" * 5000), "application/json", 422, "not JSON"),
        (with_fields('"seed": ' + "9" * 30), "application/json", 422, "seed"),
        (with_fields('"priority": 1e400'), "application/json", 422, "too large a number"),
        (with_fields('"seed": ' + "[" * 5000), "application/json", 422, "not JSON"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "application/json", 422, "nested too deeply"),
        (json.dumps(DOCUMENT).encode(), "text/plain", 415, "application/json"),
        (json.dumps(DOCUMENT).encode(), "application/x-www-form-urlencoded", 415, "application/json"),
        (json.dumps(DOCUMENT).encode(), "multipart/form-data; boundary=x", 415, "application/json"),
        (json.dumps(DOCUMENT).encode(), "", 415, "application/json"),
        (b"null", "application/json", 422, "document"),
        (b"[]", "application/json", 422, "document"),
        (b'"text"', "application/json", 422, "document"),
    ],
)
def test_only_clear_json_is_understood(
    shared: RunningDispatcher, body: bytes, kind: str, status: int, says: str
) -> None:
    """Other encodings, types and characters than JSON has, or texts that two readers might read in two ways, are refused
    with a problem that says why."""
    answer = submit(shared, body, kind)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.text


def test_a_backslash_before_u0000_is_not_nul(shared: RunningDispatcher) -> None:
    """Text that only looks like an escaped NUL is taken as it is."""
    payload = json.dumps({"call": "a:b", "settings": {"pattern": "\\u0000"}})
    body = json.dumps(DOCUMENT | {"payload": json.loads(payload)}).encode()
    answer = submit(shared, body)
    assert answer.status_code == 201
    assert answer.json()["spec"]["payload"]["settings"] == {"pattern": "\\u0000"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity, gzip"])
def test_compressed_bodies_are_not_unpacked(shared: RunningDispatcher, encoding: str) -> None:
    """A gzip bomb is refused by its announcement; nothing is unpacked."""
    bomb = gzip.compress(b"[" * 10_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    answer = send(shared, "POST", "/v1/tasks", content=bomb, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "invalid-value")
    assert "Content-Encoding" in answer.json()["detail"]


@pytest.mark.parametrize("injection", INJECTIONS)
def test_sql_in_names_is_text(shared: RunningDispatcher, injection: str) -> None:
    """In filters it matches nothing, in names and numbers it is refused; no table is harmed."""
    with shared.user() as user, shared.edge() as edge:
        task_id = user.submit(spec(5)).task_id
        for field in ("name", "owner"):
            answer = send(shared, "GET", f"/v1/tasks?{field}={quote(injection)}")
            assert (answer.status_code, answer.json()["tasks"]) == (200, [])
        for query in (f"after={quote(injection)}", f"state={quote(injection)}", f"limit={quote(injection)}"):
            assert send(shared, "GET", f"/v1/tasks?{query}").status_code == 422
        assert send(shared, "GET", f"/v1/tasks/{quote(injection, safe='')}").status_code in {404, 422}
        for field in ("name", "group", "seed", "priority"):
            assert submit(shared, json.dumps(DOCUMENT | {field: injection}).encode()).status_code == 422
        path = f"/v1/edges/{quote(injection, safe='')}"
        assert send(shared, "PUT", path, edge=True, json={"instance": "a", "cores": 1}).status_code == 422
        for body in ({"instance": injection, "cores": 1}, {"instance": "local-1", "cores": injection}):
            assert send(shared, "PUT", "/v1/edges/local", edge=True, json=body).status_code == 422
        key = {"Idempotency-Key": injection}
        first, second = (send(shared, "POST", "/v1/tasks", json=DOCUMENT, headers=key) for _ in range(2))
        assert (first.status_code, first.json()["task_id"]) == (201, second.json()["task_id"])
        assert user.task(task_id).progress.total == 5
        assert edge.health().status == "ok"


@pytest.mark.parametrize(
    "name",
    ["../etc", "a/b", "..", ".hidden", "-x", "a b", "a\nb", "", "x" * 129, "аdmin", "ａdmin", "ad\u200bmin", "a\u202eb"],  # noqa: RUF001 - confusables are meant
)  # fmt: skip
def test_names_are_plain(shared: RunningDispatcher, name: str) -> None:
    """A name cannot climb folders, break lines, look like another one or turn the line around."""
    for document in (DOCUMENT | {"name": name}, DOCUMENT | {"output": {"file": name}}):
        answer = submit(shared, json.dumps(document).encode())
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"]


def _texts(bad: str) -> list[tuple[str, Callable[[int, int], dict[str, object]]]]:
    output = {"manifest": "/m", "events": {"bounds": [0, 1]}, "digest": "sha256:0", "size": 1}
    return [
        ("path", lambda t, _: {"outputs": [output | {"task_id": t, "path": f"/{bad}"}]}),
        ("manifest", lambda t, _: {"outputs": [output | {"task_id": t, "path": "/p", "manifest": bad}]}),
        ("digest", lambda t, _: {"outputs": [output | {"task_id": t, "path": "/p", "digest": bad}]}),
    ]


@pytest.mark.parametrize("bad", ["a\nb", "a\x1b[2Jb", "../../etc/passwd", "x" * 5000], ids=repr)
def test_what_edges_say_of_files_is_checked(shared: RunningDispatcher, bad: str) -> None:
    """Paths and digests that would climb, span lines, write to terminals or fill the database are refused."""
    with shared.user() as user, shared.edge():
        task_id = user.submit(spec(5)).task_id
        for field, made in _texts(bad):
            body = {"instance": "local-1"} | made(task_id, 1)
            answer = send(shared, "POST", "/v1/edges/local/sync", edge=True, json=body)
            assert answer.status_code == 422, (field, answer.text)
            assert f"outputs.0.{field}" in answer.text
        assert user.outputs(task_id).files == ()
    with pytest.raises(InvalidValue, match="absolute"):
        OutputFile(task_id=1, path="relative", manifest="/m", events=IntervalSet(), digest="d", size=1)


def test_a_version_is_short(shared: RunningDispatcher) -> None:
    """An edge cannot store what it likes in its registration."""
    body = {"instance": "local-1", "cores": 1, "version": "x" * 129}
    assert send(shared, "PUT", "/v1/edges/local", edge=True, json=body).status_code == 422


def test_what_a_payload_says_is_made_storable(shared: RunningDispatcher) -> None:
    """An honest edge hands on whatever a payload has written: NUL and halves of characters are replaced, and the commit
    goes through."""
    with shared.user() as user, shared.edge() as edge:
        task_id = user.submit(spec(3, priority=1000, max_failed=3)).task_id
        capacity = Capacity(instance="local-1", cores=3, seconds=10.0, task_id=task_id)
        (grant,) = edge.acquire("local", capacity).leases
        failed = FailedEvent(event=0, error="core\0dumped \udcff", attempts=3)
        update = LeaseCommit(
            task_id=task_id,
            epoch=grant.epoch,
            done=IntervalSet.span(1, 3),
            failed=(failed,),
            core_seconds=1.0,
        )
        assert asdict(update)["failed"][0]["error"].startswith("core\ufffddumped \ufffd")
        edge.sync("local", SyncRequest(instance="local-1", commits=(update,)))
        assert user.task(task_id).state in {TaskState.MERGING, TaskState.RUNNING}


def _raw(dispatcher: RunningDispatcher, request: bytes) -> bytes:
    """All that is answered to bytes on a socket; nothing, perhaps, when it is cut off."""
    address = urlsplit(dispatcher.url)
    answer = b""
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            answer += piece
    return answer


@pytest.mark.parametrize(
    "header",
    [
        b"Idempotency-Key: a\x00b",
        b"Idempotency-Key: a\x01b",
        b"Idempotency-Key: a\rb",
        b"Bad\x00Name: a",
        b"Bad Name: a",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: -1",
        b"Content-Length: 1e9",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: gzip, chunked",
        b"X: " + b"x" * 100_000,
        b"\r\n".join(b"X%d: y" % i for i in range(20_000)),
    ],
    ids=lambda header: repr(header[:40]),
)
def test_headers_cannot_be_smuggled(shared: RunningDispatcher, header: bytes) -> None:
    """Control characters, two lengths, or a head without end: at most one answer, no 5xx, and nothing is done."""
    with shared.user() as user:
        before = [task.task_id for task in user.tasks(limit=1).tasks]
        token = shared.user_token.encode()
        head = b"POST /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + b"\r\n" + header
        answer = _raw(shared, head + b"\r\n\r\nsmuggGET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        statuses = [line.split(b" ")[1] for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1")]
        assert all(status < b"500" for status in statuses), answer
        assert statuses[:1] != [b"201"]
        assert [task.task_id for task in user.tasks(limit=1).tasks] == before


def test_answers_hold_no_lines_of_the_caller(shared: RunningDispatcher) -> None:
    """CR and LF in a URL come back in no header."""
    answer = _raw(
        shared,
        b"GET /v1/auth/login?next=/%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"set-cookie: a=b" not in head
