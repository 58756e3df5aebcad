"""The identity provider, as seen from the dispatcher: what it says of itself, its keys, its token endpoint.

OpenID Connect Discovery 1.0; keys after RFC 7517.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

from hpcpanda.dispatcher.identity.buckets import Buckets
from hpcpanda.dispatcher.identity.mapping import require_safe_url
from hpcpanda.domain.errors import InvalidValue, Unauthenticated, Unavailable

KEYS_SECONDS = 3600.0
"""Keys are asked for anew after so long, so that one taken back is no longer believed."""
STALE_SECONDS = 86_400.0
"""Keys that cannot be asked for anew are believed for so long."""
REFETCH_SECONDS = 30.0
"""A key that is not known lets the keys be asked for anew, in the long run once in so many seconds."""
REFETCH_BURST = 3
"""And so often at once."""
MAX_BYTES = 1 << 20
"""Longest answer of a provider that is read."""
MAX_KEYS = 100
TIMEOUT_S = 10.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where the provider does what."""

    authorization: str
    token: str
    keys: str


class Provider:
    """The provider at an issuer's address; asked only when something is needed.

    Args:
        issuer: the issuer, as the identity file says it.
        http: how it is reached; closed by :meth:`close`.
    """

    def __init__(self, issuer: str, http: httpx2.AsyncClient | None = None) -> None:
        self._issuer = issuer
        self._http = http or httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False)
        self._endpoints: Endpoints | None = None
        self._keys: list[RSAKey | ECKey] = []
        self._fetched = float("-inf")
        self._refetches = Buckets(rate=1 / REFETCH_SECONDS, burst=REFETCH_BURST)
        self._fetching = asyncio.Lock()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def endpoints(self) -> Endpoints:
        """Where the provider does what.

        Raises:
            Unavailable: it does not answer, or not as a provider with this issuer.
        """
        if self._endpoints is None:
            said = await self._get(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
            if said.get("issuer") != self._issuer:
                raise Unavailable(
                    f"the identity provider at {self._issuer} says it is another: {str(said.get('issuer'))[:200]!r}"
                )
            try:
                self._endpoints = Endpoints(
                    authorization=_url(said, "authorization_endpoint"),
                    token=_url(said, "token_endpoint"),
                    keys=_url(said, "jwks_uri"),
                )
            except InvalidValue as problem:
                raise Unavailable(
                    f"what the identity provider says of itself is unusable: {problem}"
                ) from None
        return self._endpoints

    async def keys_for(self, kid: str | None, *, now: float) -> KeySet:
        """The provider's keys, asked for anew when ``kid`` is none of them or they are old.

        Raises:
            Unavailable: there are none, or only very old ones, and the provider does not answer.
        """
        if not self._usable(kid, now):
            async with self._fetching:
                if not self._usable(kid, now) and not self._refetches.take("keys", now=now):
                    await self._refetch(now)
        if not self._keys or now - self._fetched > STALE_SECONDS:
            raise Unavailable("the identity provider's keys are not known; try again in a minute")
        return KeySet(list(self._keys))

    async def exchange(self, form: Mapping[str, str], *, client: tuple[str, str] | None) -> Mapping[str, Any]:
        """Send a form to the token endpoint (RFC 6749 section 4.1.3), as a client with its secret if it has one.

        Raises:
            Unauthenticated: the provider refuses.
            Unavailable: it does not answer.
        """
        url = (await self.endpoints()).token
        basic = None if client is None else httpx2.BasicAuth(*(quote(part, safe="") for part in client))
        auth = httpx2.USE_CLIENT_DEFAULT if basic is None else basic
        try:
            answer = await self._http.post(url, data=dict(form), auth=auth)
        except httpx2.HTTPError as error:
            raise Unavailable(f"the identity provider does not answer: {type(error).__name__}") from error
        said = _json(answer.content)
        if answer.status_code != 200:
            why = str(said.get("error", answer.status_code))[:100]
            raise Unauthenticated(f"the identity provider refused: {why}")
        return said

    def _usable(self, kid: str | None, now: float) -> bool:
        known = kid is None or any(key.kid == kid for key in self._keys)
        return known and now - self._fetched < KEYS_SECONDS

    async def _refetch(self, now: float) -> None:
        try:
            said = await self._get((await self.endpoints()).keys)
        except Unavailable as problem:
            _log.warning("identity.keys.failed", error=str(problem))
            return
        self._keys = _signing_keys(said.get("keys"))
        self._fetched = now
        _log.info("identity.keys.fetched", keys=len(self._keys))

    async def _get(self, url: str) -> Mapping[str, Any]:
        body = b""
        try:
            async with self._http.stream("GET", url) as answer:
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise Unavailable(f"the identity provider's answer at {url} is too long")
        except httpx2.HTTPError as error:
            raise Unavailable(
                f"the identity provider does not answer at {url}: {type(error).__name__}"
            ) from error
        if answer.status_code != 200:
            raise Unavailable(f"the identity provider answers {answer.status_code} at {url}")
        return _json(body)


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Unavailable("the identity provider's answer is not understood")
    return value


def _url(said: Mapping[str, Any], name: str) -> str:
    url = said.get(name)
    require_safe_url(name, url if isinstance(url, str) else "")
    return str(url)


def _signing_keys(listed: object) -> list[RSAKey | ECKey]:
    """Public keys for signatures; others, secrets above all, are left out."""
    keys: list[RSAKey | ECKey] = []
    for each in listed[:MAX_KEYS] if isinstance(listed, list) else []:
        if not isinstance(each, dict) or each.get("use", "sig") != "sig":
            continue
        try:
            if each.get("kty") == "RSA":
                keys.append(RSAKey.import_key(each))
            elif each.get("kty") == "EC":
                keys.append(ECKey.import_key(each))
        except (JoseError, ValueError, TypeError, KeyError):
            _log.warning("identity.key.unusable", kid=str(each.get("kid"))[:100])
    return keys
