"""What both clients of the dispatcher begin with: its address, the bearer token, and how patient they are."""

from __future__ import annotations

from collections.abc import Generator
from urllib.parse import urlsplit

import httpx2

from hpcpanda.domain.errors import InvalidValue

TIMEOUT_S = 30.0
"""How long an answer may take, unless said otherwise."""


SUBMIT_PAUSES_S = (0.2, 0.5, 1.0, 2.0)
"""Pauses between attempts to submit."""


def checked(url: str) -> str:
    """The base URL of a dispatcher. Raises InvalidValue when it is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InvalidValue("url", f"{url!r} is not of the form http://host:port or https://host")
    return url


class Bearer(httpx2.Auth):
    """Shows a bearer token; another one from the moment that :attr:`token` is set."""

    def __init__(self, token: str) -> None:
        self.token = token

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Add the token to a request."""
        request.headers["Authorization"] = f"Bearer {self.token}"
        yield request


def authenticated(token: str | httpx2.Auth | None) -> httpx2.Auth | None:
    """What shows a token with every request. Raises InvalidValue when no token looks like that."""
    if token is None or isinstance(token, httpx2.Auth):
        return token
    if not token or not all("!" <= c <= "~" for c in token):
        raise InvalidValue("token", "is empty, or has characters that no token has; is it the right file?")
    return Bearer(token)
