"""Counts and times the requests."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hpcpanda.dispatcher.reports.metrics import Metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Stands for methods and paths that there are not, whatever they are."""
NO_ANSWER = "none"
"""Status of a request whose client went away before it was answered."""


class RequestMetrics:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._known: dict[tuple[str, str, str], tuple[Callable[[], None], Callable[[float], None]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and note how it was answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answered = False

        async def noting(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                self._note(scope, str(message["status"]), time.perf_counter() - began)
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            if not answered:  # the outermost layer answers with 500
                answered = True
                self._note(scope, "500", time.perf_counter() - began)
            raise
        finally:
            if not answered:
                self._note(scope, NO_ANSWER, time.perf_counter() - began)

    def _note(self, scope: Scope, status: str, seconds: float) -> None:
        path = getattr(scope.get("route"), "path", None) or OTHER
        method = scope["method"] if scope["method"] in METHODS else OTHER
        key = (method, path, status)
        known = self._known.get(key)
        if known is None:
            counter = self._metrics.requests.labels(method, path, status)
            known = (counter.inc, self._metrics.request_seconds.labels(method, path).observe)
            self._known[key] = known
        count, observe = known
        count()
        observe(seconds)
