"""JSON that means what it says: what the dispatcher understands of a body, and what it refuses."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from hpcpanda.dispatcher.retrying import again_on_contention

_DOUBTFUL = re.compile(r"\\u(?:d[89a-f]|0000)", re.IGNORECASE)
"""Half of a character, perhaps: without the other half the text cannot be written anywhere. Or NUL, of which
PostgreSQL has no text."""


class StrictJsonRoute(APIRoute):
    """A route that refuses what JSON does not have, or does not say clearly: NaN, infinities, nesting without end,
    a name twice in one object, halves of characters; and any other content than JSON.

    A request whose transaction was undone because of another one is done again.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Hand requests on with a stricter parser."""
        handle = super().get_route_handler()
        has_body = self.body_field is not None

        async def handler(request: Request) -> Response:
            strict = _StrictRequest(request.scope, request.receive)
            if has_body:
                _require_json(strict)
            noted = request.app.state.context.metrics.contention.inc
            return await again_on_contention(lambda: handle(strict), noted=noted)

        return handler


class _StrictRequest(Request):
    async def json(self) -> Any:  # noqa: ANN401 - JSON is anything
        """Parse the body."""
        try:
            return _parse((await self.body()).decode())
        except (ValueError, RecursionError) as error:
            problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise HTTPException(422, f"the body is not JSON: {problem}") from error


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(
            415, f"the body is {kind[:80] or 'of no type'}; send 'Content-Type: application/json'"
        )


def _parse(text: str) -> Any:  # noqa: ANN401 - JSON is anything
    if text.startswith("\ufeff"):
        raise ValueError("it begins with a byte order mark (BOM); leave that out")
    value = _DECODER.decode(text)
    if _DOUBTFUL.search(text):
        plain = json.dumps(value, ensure_ascii=False)
        plain.encode()
        if "\\u0000" in plain and "\0" in _texts(value):
            raise ValueError("the character NUL is in none of its texts; leave it out")
    return value


def _texts(value: object) -> str:
    """All texts of a document, one after the other."""
    match value:
        case str():
            return value
        case dict():
            return "".join(f"{name}{_texts(item)}" for name, item in value.items())
        case list():
            return "".join(map(_texts, value))
    return ""


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object; RFC 8259 leaves open which of two members of one name counts."""
    value = dict(pairs)
    if len(value) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:80]!r} is said twice")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_once)
