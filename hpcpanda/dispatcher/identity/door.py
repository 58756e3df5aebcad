"""Who is let in: the token a request shows, how often, and whether a browser was tricked into showing it."""

from __future__ import annotations

import structlog
from fastapi import Request

from hpcpanda.dispatcher.auth import SESSION_PREFIX, Bearers
from hpcpanda.dispatcher.identity.buckets import Buckets, network_of
from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.domain.errors import Forbidden, Unauthenticated

SESSION_COOKIE = "hpcpanda_session"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_log = structlog.get_logger(__name__)


def address_of(request: Request) -> str:
    """Where a request comes from."""
    return request.client.host if request.client else "unknown"


class Door:
    """Lets callers in.

    Callers with a good token are limited each by themselves; the others, by their address, so that guessing tokens
    or flooding the open routes harms nobody else.

    Args:
        bearers: knows tokens.
        origin: address at which browsers reach the dispatcher; None when they cannot log in.
        callers: buckets of callers with a token.
        strangers: buckets of addresses.
    """

    def __init__(self, bearers: Bearers, *, origin: str | None, callers: Buckets, strangers: Buckets) -> None:
        self._bearers = bearers
        self._origin = origin
        self._callers = callers
        self._strangers = strangers

    def admit_stranger(self, request: Request, *, now: float) -> None:
        """Let anybody in.

        Raises:
            TooManyRequests: too many came from the same address.
        """
        self._strangers.require(network_of(address_of(request)), now=now)

    async def admit(self, request: Request, *, now: float) -> Principal:
        """The caller that a request's token stands for.

        Raises:
            Unauthenticated: there is no token, or a bad one.
            Forbidden: a browser sends it on behalf of another site.
            TooManyRequests: the caller, or their address, asks too often.
            Unavailable: the identity provider is needed and does not answer.
        """
        network = network_of(address_of(request))
        try:
            token = self._token(request)
            principal = self._bearers.known(token, now=now)
            if principal is None:
                self._strangers.require(network, now=now, take=False)
                principal = await self._bearers.identify(token, now=now)
        except Unauthenticated as problem:
            self._strangers.require(network, now=now)
            _log.info("auth.refused", why=str(problem), address=address_of(request), path=request.url.path)
            raise
        self._callers.require(principal.key, now=now)
        if principal.by_cookie and request.method not in SAFE:
            self._require_same_site(request)
        return principal

    def charge(self, principal: Principal, requests: float, *, now: float) -> None:
        """Count a request that is as much work as several."""
        self._callers.charge(principal.key, requests, now=now)

    def _token(self, request: Request) -> str:
        authorization = request.headers.get("authorization")
        cookie = request.cookies.get(SESSION_COOKIE, "") if self._origin is not None else ""
        if authorization is None and cookie.startswith(SESSION_PREFIX):
            return cookie
        kind, _, token = (authorization or "").partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise Unauthenticated("send 'Authorization: Bearer <token>' with a token of this dispatcher")
        if token.strip().startswith(SESSION_PREFIX):
            raise Unauthenticated("a browser's session is shown as a cookie only")
        return token.strip()

    def _require_same_site(self, request: Request) -> None:
        """Browsers say where a request that changes something comes from (Fetch standard, ``Origin``)."""
        if request.headers.get("origin") != self._origin:
            raise Forbidden(
                "the request comes from another web site than this dispatcher's; nothing was done"
            )
