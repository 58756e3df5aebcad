"""The service against its own description."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.dispatcher import RunningDispatcher

KNOWN = {"instance": "local-1", "wait_s": 0.0}
"""Values that let a request of the edge through to the work itself, without waiting."""


def test_no_generated_request_makes_the_service_fail(shared: RunningDispatcher) -> None:
    """Requests made up from the OpenAPI document, right and wrong ones, are never answered with 5xx."""
    with shared.edge():
        pass
    schema = schemathesis.openapi.from_url(f"{shared.url}/openapi.json")
    modes = list(schemathesis.GenerationMode)
    requests = st.one_of(
        operation.ok().as_strategy(generation_mode=mode)
        for operation in schema.get_all_operations()
        for mode in modes
    )

    @settings(
        max_examples=200,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests)
    def send(case: schemathesis.Case) -> None:
        is_edge = "/v1/edges/" in case.path
        if is_edge:
            case.path_parameters = {"name": "local"}
            if isinstance(case.body, dict):
                case.body |= {k: v for k, v in KNOWN.items() if k in case.body}
        token = shared.edge_token() if is_edge else shared.user_token
        answer = case.call(headers={"Authorization": f"Bearer {token}"}, timeout=20)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert answer.headers["content-type"][0] == "application/problem+json"

    send()
