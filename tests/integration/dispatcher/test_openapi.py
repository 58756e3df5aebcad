"""The service against its own description. Run over both databases (see test_conformance)."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core import NotSet
from support.dispatcher import RunningDispatcher, spec

from hpcpanda.dispatcher.identity.scopes import BUNDLES, Scope, TokenKind
from hpcpanda.dispatcher.run import create_token
from hpcpanda.domain.exchange import Capacity

EXAMPLES = int(os.environ.get("HPCPANDA_OPENAPI_EXAMPLES", "250"))
"""Requests in all; a longer run finds more."""
TASKS = 3
KNOWN: dict[str, Any] = {"instance": "local-1", "wait_s": 0.0}
"""Values that let a request of the edge through to the work itself, without waiting."""
UNDOING = {"/v1/auth/logout", "/v1/auth/rotate", "/v1/admin/tokens/{kind}/{name}"}
"""Routes that take tokens away: they are called with, and for, tokens that nothing else needs."""


def kind_for(operation: dict[str, Any]) -> TokenKind:
    """Whose token opens a route."""
    needed = {
        Scope(scope) for each in operation.get("security", []) for scopes in each.values() for scope in scopes
    }
    return next(kind for kind in (TokenKind.USER, *TokenKind) if needed <= BUNDLES[kind])


def acquainted(document: object, draw: st.DataObject) -> object:
    """A document that speaks of tasks and leases that there are."""
    if isinstance(document, list):
        return [acquainted(item, draw) for item in document]
    if not isinstance(document, dict):
        return document
    made = {name: acquainted(item, draw) for name, item in document.items()}
    for name in made.keys() & {"task_id", "epoch"}:
        made[name] = draw.draw(st.integers(1, TASKS))
    return made | {name: value for name, value in KNOWN.items() if name in made}


def furnish(dispatcher: RunningDispatcher) -> None:
    """Tasks in three states, leases, failures: something to ask about."""
    with dispatcher.user() as user, dispatcher.edge() as edge:
        ids = [user.submit(spec(50, max_failed=50)).task_id for _ in range(TASKS)]
        for task_id in ids[:2]:
            edge.acquire("local", Capacity(instance="local-1", cores=10, seconds=1.0, task_id=task_id))
        user.cancel(ids[0])


def test_no_generated_request_makes_the_service_fail(shared: RunningDispatcher) -> None:
    """Requests made up from the OpenAPI document, right and wrong ones, to every route with a token that opens it, about
    things that there are and that there are not: none is answered with 5xx, and every refusal is a problem."""
    furnish(shared)
    schema = schemathesis.openapi.from_url(f"{shared.url}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    tokens = {kind: create_token(shared.settings, kind, "local") for kind in TokenKind}
    spare = {kind: create_token(shared.settings, kind, "spare") for kind in TokenKind}
    requests = st.one_of(
        operation.as_strategy(generation_mode=mode)
        for operation in operations
        for mode in schemathesis.GenerationMode
    )
    asked: Counter[str] = Counter()
    statuses: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests, st.data())
    def send(case: schemathesis.Case, draw: st.DataObject) -> None:
        path = case.path
        named: dict[str, Any] = dict(case.path_parameters or {})
        if "/v1/edges/" in path or draw.draw(st.booleans()):
            real = {"task_id": draw.draw(st.integers(1, TASKS)), "name": "local", "scope": "sand"}
            named |= {name: value for name, value in real.items() if name in named}
            if not isinstance(case.body, NotSet):
                case.body = acquainted(case.body, draw)
        if path in UNDOING and "name" in named:
            named["name"] = "spare"
        case.path_parameters = named
        kind = kind_for(case.operation.definition.raw)
        token = (spare if path in UNDOING and kind is not TokenKind.ADMIN else tokens)[kind]
        answer = case.call(headers={"Authorization": f"Bearer {token}"}, timeout=30, allow_redirects=False)
        asked[f"{case.method} {path}"] += 1
        statuses[answer.status_code] += 1
        assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"
        if answer.status_code >= 400 and answer.text != "Invalid HTTP request received.":
            assert answer.headers["content-type"][0] == "application/problem+json"

    send()
    print(f"{sum(asked.values())} requests to {len(asked)} of {len(operations)} operations: {dict(statuses)}")
    assert len(asked) > len(operations) * 0.8, "few of the routes were tried"
    assert statuses[200] > 0


def test_every_token_finds_every_door_but_its_own_closed(shared: RunningDispatcher) -> None:
    """Each route, with no token and with each kind of token that does not open it, right and wrong requests: 401, 403, or
    a refusal of the request itself; never 2xx."""
    schema = schemathesis.openapi.from_url(f"{shared.url}/openapi.json")
    tokens = {kind: create_token(shared.settings, kind, "knocking") for kind in TokenKind}
    closed = 0

    @settings(
        max_examples=2,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def knock(draw: st.DataObject) -> None:
        nonlocal closed
        for each in schema.get_all_operations():
            operation = each.ok()
            needed = {
                Scope(s) for e in operation.definition.raw.get("security", []) for v in e.values() for s in v
            }
            if not needed:
                continue
            case = draw.draw(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
            wrong = [tokens[kind] for kind in TokenKind if not needed <= BUNDLES[kind]]
            for token in (*wrong, "hpcpanda-user-guess"):
                answer = case.call(headers={"Authorization": f"Bearer {token}"}, timeout=30)
                assert answer.status_code in {401, 403, 404, 415, 422, 429}, (operation.label, answer.text)
                closed += answer.status_code in {401, 403}

    knock()
    assert closed > 20
