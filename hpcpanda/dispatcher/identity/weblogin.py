"""Logging in with a browser: authorisation code with PKCE.

OpenID Connect Core 1.0 section 3.1, RFC 7636 (PKCE, S256), RFC 9207 (issuer in the answer), RFC 9700 (best practice). The
``state`` is a secret of 256 bits, bound to the browser by a cookie, and used up by its first use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from hpcpanda.dispatcher.auth import digest_of, make_token
from hpcpanda.dispatcher.identity.mapping import IdentityFile, WebClient
from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.dispatcher.identity.provider import Provider
from hpcpanda.dispatcher.identity.verify import verify_id
from hpcpanda.dispatcher.store.identity import Login
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.errors import InvalidValue, Unauthenticated

LOGIN_SECONDS = 600.0
"""A browser may be at the provider for so long."""
SESSION_SECONDS = 8 * 3600.0
"""A browser is logged in for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """Where a browser goes to log in, and the secret it brings back."""

    url: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """What a browser brings back from the provider."""

    state: str
    cookie: str
    """The state as its cookie has it."""
    code: str | None
    error: str | None
    issuer: str | None


class WebLogin:
    """Logs browsers in at a provider.

    Args:
        identity: the identity file.
        web: its part about browsers.
        provider: the provider it names.

    Raises:
        InvalidValue: the file with the client's secret cannot be read.
    """

    def __init__(self, identity: IdentityFile, web: WebClient, provider: Provider) -> None:
        self._identity = identity
        self._web = web
        self._provider = provider
        self._secret = _secret(web)
        parts = urlsplit(web.address)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.secure = parts.scheme == "https"

    async def start(self, uow: UnitOfWork, *, next_path: str, now: float) -> Started:
        """Send a browser to the provider; it comes back to ``next_path`` in the end.

        Raises:
            InvalidValue: the path leads to another site.
            Unavailable: the provider does not answer.
        """
        if not next_path.startswith("/") or next_path[1:2] in ("/", "\\") or not next_path.isprintable():
            raise InvalidValue("next", "is no path of this dispatcher")
        where = (await self._provider.endpoints()).authorization
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        async with uow:
            login = Login(nonce=nonce, verifier=verifier, next=next_path)
            await uow.sessions.begin(digest_of(state), login, expires=now + LOGIN_SECONDS)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._web.client_id,
            "redirect_uri": self._callback,
            "scope": " ".join(self._web.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return Started(url=f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}", state=state)

    async def take(self, uow: UnitOfWork, returned: Returned, *, now: float) -> Login:
        """The login that a browser comes back to; it is used up, whatever comes of it.

        Raises:
            Unauthenticated: there is none, or another browser began it.
        """
        if not returned.cookie or not hmac.compare_digest(returned.state.encode(), returned.cookie.encode()):
            raise Unauthenticated("this browser has not begun to log in; begin again at /v1/auth/login")
        async with uow:
            login = await uow.sessions.take(digest_of(returned.state), now=now)
        if login is None:
            raise Unauthenticated(
                "this login was finished before, or took too long; begin again at /v1/auth/login"
            )
        return login

    async def claim(self, login: Login, returned: Returned, *, now: float) -> Principal:
        """Who has logged in: exchanges the code for an ID token.

        Raises:
            Unauthenticated: the provider refuses, or its token is not for this login.
            Unavailable: it does not answer.
        """
        if returned.issuer is not None and returned.issuer != self._identity.issuer:
            raise Unauthenticated("the answer is of another identity provider")
        if returned.error is not None or returned.code is None:
            why = (returned.error or "no code")[:100]
            raise Unauthenticated(f"the identity provider did not log you in: {why}")
        form = {
            "grant_type": "authorization_code",
            "code": returned.code,
            "redirect_uri": self._callback,
            "code_verifier": login.verifier,
        }
        client_id = self._web.client_id
        if self._secret is None:
            said = await self._provider.exchange({**form, "client_id": client_id}, client=None)
        else:
            said = await self._provider.exchange(form, client=(client_id, self._secret))
        return await self._principal(said, login, now)

    async def _principal(self, said: Mapping[str, object], login: Login, now: float) -> Principal:
        token = said.get("id_token")
        if not isinstance(token, str):
            raise Unauthenticated("the identity provider sent no ID token; is 'openid' among the scopes?")
        claims = await verify_id(
            self._provider,
            token,
            issuer=self._identity.issuer,
            client_id=self._web.client_id,
            nonce=login.nonce,
            now=now,
        )
        return self._identity.principal(claims)

    @property
    def _callback(self) -> str:
        return self._web.address.rstrip("/") + "/v1/auth/callback"


async def open_session(uow: UnitOfWork, principal: Principal, *, address: str, now: float) -> str:
    """Log somebody in; gives what their browser shows from now on."""
    token = make_token("session")
    async with uow:
        await uow.sessions.add(digest_of(token), principal, expires=now + SESSION_SECONDS)
        await uow.audit.add(at=now, who=principal.key, did="login", target="", address=address)
    return token


def _secret(web: WebClient) -> str | None:
    if web.client_secret_file is None:
        return None
    try:
        return Path(web.client_secret_file).read_text().strip()
    except (OSError, ValueError) as problem:
        raise InvalidValue(
            "web.client_secret_file", f"{web.client_secret_file} cannot be read: {problem}"
        ) from None
