"""The page for Prometheus, of a running dispatcher: who may read it, what is on it, and what it costs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message
from support.dispatcher import RunningDispatcher, spec

from hpcpanda.dispatcher.reports.metrics import Metrics
from hpcpanda.dispatcher.reports.requests import RequestMetrics
from hpcpanda.dispatcher.run import create_token
from hpcpanda.domain.exchange import Capacity, LeaseCommit, SyncRequest
from hpcpanda.domain.ledger import FailedEvent
from hpcpanda.domain.states import TaskState

ROOT = Path(__file__).parents[3]

Page = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Monitor:
    """Reads the page as Prometheus does."""

    def __init__(self, dispatcher: RunningDispatcher) -> None:
        token = create_token(dispatcher.settings, "monitor", "prometheus")
        self.http = httpx2.Client(base_url=dispatcher.url, headers={"Authorization": f"Bearer {token}"})

    def read(self) -> Page:
        answer = self.http.get("/metrics")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        return self.read().get((name, frozenset(labels.items())), 0.0)


@pytest.fixture
def monitor(shared: RunningDispatcher) -> Iterator[Monitor]:
    made = Monitor(shared)
    yield made
    made.http.close()


def test_only_monitors_and_administrators_read_figures(shared: RunningDispatcher, monitor: Monitor) -> None:
    """Nobody else learns from them what others do; and a monitor can do nothing else."""
    tokens = {kind: create_token(shared.settings, kind, f"some-{kind}") for kind in ("user", "edge", "admin")}
    with httpx2.Client(base_url=shared.url) as http:
        assert http.get("/metrics").status_code == 401
        answers = {
            kind: http.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code
            for kind, token in tokens.items()
        }
    assert answers == {"user": 403, "edge": 403, "admin": 200}
    for path in ("/v1/tasks", "/v1/edges", "/v1/changes", "/v1/reports/usage"):
        assert monitor.http.get(path).status_code == 403


def test_work_that_is_done_is_counted(shared: RunningDispatcher, monitor: Monitor) -> None:
    """Leases, commits and events as they are; what is repeated after a lost answer is not done again."""
    before = monitor.read()

    def more(name: str, **labels: str) -> float:
        return monitor.value(name, **labels) - before.get((name, frozenset(labels.items())), 0.0)

    with shared.user() as user, shared.edge("counted") as edge:
        task = user.submit(spec(10, max_failed=5))
        wanted = Capacity(instance="counted-1", cores=10, seconds=1.0, task_id=task.task_id)
        (grant,) = edge.acquire("counted", wanted).leases
        done, last = grant.events.take(len(grant.events) - 1)
        failed = (FailedEvent(event=last.bounds[0], error="bad"),)
        commit = LeaseCommit(task_id=task.task_id, epoch=grant.epoch, done=done, failed=failed)
        for _ in range(2):
            edge.sync("counted", SyncRequest(instance="counted-1", commits=(commit,)))
    assert more("hpcpanda_leases_granted_total") == 1
    assert more("hpcpanda_events_leased_total") == len(grant.events)
    assert more("hpcpanda_commits_total") == 2
    assert more("hpcpanda_events_settled_total", outcome="done") == len(done)
    assert more("hpcpanda_events_settled_total", outcome="failed") == 1
    sync = {"method": "POST", "route": "/v1/edges/{name}/sync"}
    assert more("hpcpanda_requests_total", **sync, status="200") == 2
    assert more("hpcpanda_request_seconds_count", **sync) == 2


def test_labels_do_not_grow_with_use(shared: RunningDispatcher, monitor: Monitor) -> None:
    """Whatever paths, methods, tasks and edges are asked for, the page has no line more for them."""

    def ask(n: int) -> None:
        for path in (f"/none/{n}", f"/v1/tasks/{n + 10**6}", f"/v1/tasks/x{n}", f"/v1/edges/e{n}/sync"):
            monitor.http.request("GET", path)
            monitor.http.request(f"M{n}", path)
        with shared.user() as user, pytest.raises(Exception, match="no task"):
            user.task(10**6 + n)

    ask(1)
    before = monitor.read().keys()
    for n in range(2, 8):
        ask(n)
    with shared.user() as user, shared.edge("labelled"):
        user.submit(spec(10))
    new = {(name, labels) for name, labels in monitor.read().keys() - before}
    allowed = {"/v1/tasks", "/v1/edges/{name}"}
    assert {dict(labels).get("route") for _, labels in new} <= allowed
    assert not [labels for _, labels in before | new if re.search(r"\d{4}|labelled|none/|M\d", str(sorted(labels)))
                and "le" not in dict(labels) and "version" not in dict(labels)]  # fmt: skip


def test_what_the_database_holds_is_told(shared: RunningDispatcher, monitor: Monitor) -> None:
    """Tasks by every state there is, events by place, edges, connections; no older than ten seconds."""
    with shared.user() as user, shared.edge("told"):
        user.submit(spec(123_456))
    deadline = time.monotonic() + 30
    while (page := monitor.read())["hpcpanda_open_events", frozenset({("place", "ready")})] < 123_456:
        assert time.monotonic() < deadline, "the figures are not counted again"
        time.sleep(0.5)
    states = {dict(labels)["state"] for name, labels in page if name == "hpcpanda_tasks"}
    assert states == set(TaskState)
    assert page["hpcpanda_tasks", frozenset({("state", "ready")})] >= 1
    assert page["hpcpanda_edges", frozenset({("alive", "yes")})] >= 1
    assert page["hpcpanda_database_up", frozenset()] == 1
    assert ("hpcpanda_database_connections", frozenset({("use", "busy")})) in page


def test_the_board_shows_what_there_is(monitor: Monitor) -> None:
    """Every metric that the board asks for is on the page; every metric of the page is in the reference."""
    names = {name for name, _ in monitor.read()}
    base = {re.sub(r"_(total|count|sum|bucket|created|info)$", "", name) for name in names}
    board = json.loads((ROOT / "docs/how-to/grafana-dashboard.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    assert len(asked) >= 15
    used = {word for expr in asked for word in re.findall(r"\b(?:hpcpanda|process)_\w+", expr)}
    assert used <= names
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    reference = (ROOT / "docs/reference/metrics.md").read_text()
    ours = {name for name in base if name.startswith("hpcpanda_")}
    assert not [name for name in ours if f"`{name}" not in reference]
    assert not [
        name for name in re.findall(r"`(hpcpanda_\w+?)(?:_total|_info)?`", reference) if name not in ours
    ]


async def test_counting_a_request_costs_little() -> None:
    """Less than 50 us, where a request costs about a hundred times that; best of several, since the machine is shared."""
    answer: list[Message] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b""},
    ]

    class Route:
        path = "/v1/tasks/{task_id}"

    async def app(_scope: object, _receive: object, send: object) -> None:
        for message in answer:
            await send(message)  # type: ignore[operator]

    async def ignore(_: object = None) -> Message:
        return {}

    async def seconds(what: object) -> float:
        scope = {"type": "http", "method": "GET", "route": Route()}
        began = time.perf_counter()
        for _ in range(2000):
            await what(scope, ignore, ignore)  # type: ignore[operator]
        return (time.perf_counter() - began) / 2000

    counted = RequestMetrics(app, Metrics())  # type: ignore[arg-type]
    costs = [await seconds(counted) - await seconds(app) for _ in range(9)]
    assert min(costs) < 50e-6


def test_who_waits_is_told(shared: RunningDispatcher, monitor: Monitor) -> None:
    """A request that waits for work is counted while it waits, and no longer."""
    wanted = {"instance": "waiting-1", "cores": 1, "seconds": 1.0, "wait_s": 5.0, "task_id": 10**9}
    with shared.edge("waiting"):
        pass
    token = {"Authorization": f"Bearer {shared.edge_token('waiting')}"}
    with ThreadPoolExecutor(1) as thread, httpx2.Client(base_url=shared.url, headers=token) as http:
        asked = thread.submit(http.post, "/v1/edges/waiting/leases", json=wanted, timeout=60.0)
        deadline = time.monotonic() + 20
        while monitor.value("hpcpanda_waiting_requests") != 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert asked.result().json() == {"leases": []}
    assert monitor.value("hpcpanda_waiting_requests") == 0
