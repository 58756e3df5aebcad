"""Bearer tokens: what they allow, and who their bearer is."""

from __future__ import annotations

import hashlib
import hmac
import secrets

from hpcpanda.dispatcher.identity.mapping import IdentityFile
from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.dispatcher.identity.provider import Provider
from hpcpanda.dispatcher.identity.scopes import BUNDLES, TokenKind
from hpcpanda.dispatcher.identity.verify import verify_access
from hpcpanda.dispatcher.store.unit import Store, UnitOfWork
from hpcpanda.domain.errors import Unauthenticated

KNOWN_SECONDS = 60.0
"""How long a token that was looked up is taken as known, also after it was taken back."""
MAX_KNOWN = 10_000
"""Most tokens remembered."""
SESSION_PREFIX = "hpcpanda-session-"
"""Begins what a browser shows."""


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def make_token(kind: str) -> str:
    """A new token of 256 random bits; its prefix lets it be found where it was left by mistake."""
    return f"hpcpanda-{kind}-{secrets.token_urlsafe(32)}"


async def issue_token(
    uow: UnitOfWork, *, kind: TokenKind, name: str, now: float, expires: float | None = None
) -> str:
    """Make a token and record its digest; the token itself is kept nowhere."""
    token = make_token(kind)
    async with uow:
        await uow.tokens.add(digest_of(token), scope=kind, name=name, now=now, expires=expires)
    return token


class Bearers:
    """Knows the bearers of tokens; remembers each for a while, so that most requests need no look-up.

    Args:
        store: where the dispatcher's own tokens are.
        identity: whose other tokens are believed, and what they allow.
        provider: the identity provider itself.
    """

    def __init__(
        self, store: Store, identity: IdentityFile | None = None, provider: Provider | None = None
    ) -> None:
        self._store = store
        self._identity = identity
        self._provider = provider
        self._known: dict[str, tuple[Principal, float]] = {}

    def known(self, token: str, *, now: float) -> Principal | None:
        """The bearer of a token that was looked up a short while ago."""
        principal, until = self._known.get(digest_of(token), (None, 0.0))
        return principal if until > now else None

    async def identify(self, token: str, *, now: float) -> Principal:
        """The bearer of a token.

        Raises:
            Unauthenticated: the token is unknown, forged, or has ended.
            Unavailable: the identity provider is needed and does not answer.
        """
        digest = digest_of(token)
        principal = await self._look_up(token, digest, now)
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        ends = now + KNOWN_SECONDS if principal.expires is None else principal.expires
        self._known[digest] = (principal, min(now + KNOWN_SECONDS, ends))
        return principal

    def forget(self, digest: str | None = None) -> None:
        """Look a token up again when it is next shown; without one, look up all."""
        if digest is None:
            self._known.clear()
        else:
            self._known.pop(digest, None)

    async def _look_up(self, token: str, digest: str, now: float) -> Principal:
        if token.count(".") == 2 and self._identity is not None and self._provider is not None:
            said = self._identity
            claims = await verify_access(
                self._provider, token, issuer=said.issuer, audience=said.audience, now=now
            )
            return said.principal(claims)
        principal = (
            await self._session(digest, now)
            if token.startswith(SESSION_PREFIX)
            else await self._own(digest, now)
        )
        if principal is None or not hmac.compare_digest(principal.digest or "", digest):
            raise Unauthenticated("the token is not one of this dispatcher's, or has ended; log in again")
        return principal

    async def _session(self, digest: str, now: float) -> Principal | None:
        async with self._store.reading() as uow:
            return await uow.sessions.find(digest, now=now)

    async def _own(self, digest: str, now: float) -> Principal | None:
        async with self._store.reading() as uow:
            found = await uow.tokens.find(digest, now=now)
        if found is None:
            return None
        scopes = BUNDLES[TokenKind(found.kind)]
        return Principal(
            name=found.name,
            scopes=scopes,
            created=found.created,
            expires=found.expires,
            digest=found.digest,
        )
