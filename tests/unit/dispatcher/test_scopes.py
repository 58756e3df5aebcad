"""Rules that hold for every route that is served: scopes, sight, the audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from support.dispatcher import spec

from hpcpanda.dispatcher import context
from hpcpanda.dispatcher.app import build_app
from hpcpanda.dispatcher.identity.scopes import BUNDLES, PUBLIC, Scope, TokenKind
from hpcpanda.dispatcher.run import create_token
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.codec import dump_spec

ROOT = Path(__file__).parents[3]
READING = {PUBLIC, Scope.SELF, Scope.TASKS_READ, Scope.EDGES_READ, Scope.METRICS_READ, Scope.ADMIN}


def scopes(dependant: Dependant) -> set[str]:
    own = set(dependant.own_oauth_scopes or ())
    return own.union(*(scopes(child) for child in dependant.dependencies))


def calls(dependant: Dependant) -> set[object]:
    return {dependant.call}.union(*(calls(child) for child in dependant.dependencies))


def served(routes: object) -> Iterator[APIRoute]:
    """All routes of an app, those of the routers it includes too."""
    for route in routes:  # type: ignore[attr-defined]
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from served(getattr(getattr(route, "original_router", route), "routes", ()))


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[APIRoute]:
    app = build_app(DispatcherSettings(state=tmp_path_factory.mktemp("state")))
    found = list(served(app.routes))
    assert {r.path for r in found} >= set(app.openapi()["paths"])
    return found


def test_every_route_served_declares_one_scope(routes: list[APIRoute]) -> None:
    """No route is open or closed by accident, whoever added it."""
    assert len(routes) > 15
    wrong = {r.path: scopes(r.dependant) for r in routes if len(scopes(r.dependant)) != 1}
    assert not wrong
    assert set().union(*(scopes(r.dependant) for r in routes)) <= {*Scope, PUBLIC} - {Scope.TASKS_ALL}


def test_looking_needs_no_right_to_change(routes: list[APIRoute]) -> None:
    """Routes that only show need a scope of reading, and routes that change need another."""
    gets = {r.path: scopes(r.dependant) for r in routes if r.methods == {"GET"}}
    assert not {path: needed for path, needed in gets.items() if not needed <= READING}
    changes = {r.path: scopes(r.dependant) for r in routes if r.methods and "GET" not in r.methods}
    writing = {Scope.TASKS_READ, Scope.EDGES_READ, PUBLIC}
    assert not {path: needed for path, needed in changes.items() if needed & writing}


def test_every_route_of_a_task_looks_whether_it_is_seen(routes: list[APIRoute]) -> None:
    """A task that the caller does not see is not found, by whatever route."""
    about = [r for r in routes if "{task_id}" in r.path]
    assert len(about) >= 5
    assert not [r.path for r in about if context._visible_task not in calls(r.dependant)]


def test_every_scope_is_documented() -> None:
    """The page of scopes names each, and the kinds of tokens with what they allow."""
    text = (ROOT / "docs/reference/scopes.md").read_text()
    assert not [scope for scope in (*Scope, PUBLIC) if f"`{scope}`" not in text]
    assert set(BUNDLES) == set(TokenKind)
    for kind, bundle in BUNDLES.items():
        (row,) = (line for line in text.splitlines() if line.startswith(f"| token `{kind}` "))
        assert {scope for scope in Scope if f"`{scope}`" in row.split("|", 2)[2]} == bundle


def test_every_setting_of_identity_is_documented() -> None:
    """As are the settings and the fields of the identity file."""
    text = (ROOT / "docs/how-to/connect-an-identity-provider.md").read_text()
    names = (
        "identity",
        "token_days",
        "token_overlap_seconds",
        "caller_rate",
        "address_rate",
        "trusted_proxies",
    )
    for name in (*names, "tls_certificate", "tls_key"):
        assert name in DispatcherSettings.model_fields
        assert f"HPCPANDA_DISPATCHER_{name.upper()}`" in text


def test_what_users_do_is_written_down(tmp_path: Path) -> None:
    """Who, what, to what, from where; with the change or not at all; for administrators' eyes only."""
    settings = DispatcherSettings(state=tmp_path)
    tokens = {kind: create_token(settings, kind, f"my-{kind}") for kind in TokenKind}
    with TestClient(build_app(settings)) as client:

        def send(kind: str, method: str, path: str, **more: object) -> int:
            headers = {"Authorization": f"Bearer {tokens[TokenKind(kind)]}"}
            answer = client.request(method, path, headers=headers, **more)  # type: ignore[arg-type]
            send.body = answer.json() if answer.content else None  # type: ignore[attr-defined]
            return answer.status_code

        assert send("user", "POST", "/v1/tasks", json=json.loads(dump_spec(spec(5)))) == 201
        assert send("user", "POST", "/v1/tasks/1/cancel") == 200
        assert send("user", "POST", "/v1/tasks/99/cancel") == 404
        assert send("user", "GET", "/v1/tasks/1") == 200
        assert send("edge", "PUT", "/v1/edges/my-edge", json={"instance": "e-1", "cores": 1}) == 200
        for kind in ("user", "edge"):
            assert send(kind, "GET", "/v1/admin/audit") == 403
            assert send(kind, "DELETE", "/v1/admin/tokens/user/my-user") == 403
        assert send("admin", "DELETE", "/v1/admin/tokens/user/my-user") == 200
        assert send.body == {"tokens": 1, "sessions": 0}  # type: ignore[attr-defined]
        assert send("user", "GET", "/v1/tasks/1") == 401
        assert send("admin", "GET", "/v1/admin/audit") == 200
        entries = send.body["entries"]  # type: ignore[attr-defined]
        assert [(e["who"], e["did"], e["target"], e["address"]) for e in entries] == [
            ("user:my-admin", "DELETE /v1/admin/tokens/user/my-user", "user my-user", "testclient"),
            ("user:my-user", "POST /v1/tasks/1/cancel", "", "testclient"),
            ("user:my-user", "POST /v1/tasks", "task 1", "testclient"),
        ]
        assert send("admin", "GET", "/v1/admin/audit?who=user:my-user&limit=1") == 200
        page = send.body  # type: ignore[attr-defined]
        assert (len(page["entries"]), page["next_before"]) == (1, page["entries"][0]["entry"])
