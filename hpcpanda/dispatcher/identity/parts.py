"""What a dispatcher has of identity, put together from its settings."""

from __future__ import annotations

from dataclasses import dataclass

from hpcpanda.dispatcher.auth import Bearers
from hpcpanda.dispatcher.identity.buckets import Buckets
from hpcpanda.dispatcher.identity.door import Door
from hpcpanda.dispatcher.identity.mapping import load_identity
from hpcpanda.dispatcher.identity.provider import Provider
from hpcpanda.dispatcher.identity.weblogin import WebLogin
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.domain.identity import IdentityProvider

BURST_SECONDS = 5.0
"""After a silence, so many seconds' worth of requests may come at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The identity provider's part in a dispatcher, as far as there is one."""

    bearers: Bearers
    door: Door
    provider: Provider | None = None
    web: WebLogin | None = None
    device: IdentityProvider | None = None
    token_seconds: float = 30 * 86_400.0
    """Life of a token that was given in place of another."""
    overlap_seconds: float = 3600.0
    """How long the other goes on."""

    async def close(self) -> None:
        """Close the connections to the provider."""
        if self.provider is not None:
            await self.provider.close()


def make_identity(settings: DispatcherSettings, store: Store) -> Identity:
    """Put the parts together.

    Raises:
        InvalidValue: the identity file, or a file it names, cannot be used.
    """
    said = load_identity(settings.identity) if settings.identity is not None else None
    provider = Provider(said.issuer) if said is not None else None
    bearers = Bearers(store, said, provider)
    web = WebLogin(said, said.web, provider) if said is not None and said.web and provider else None
    device = None
    if said is not None and said.device is not None:
        device = IdentityProvider(
            issuer=said.issuer,
            client_id=said.device.client_id,
            scopes=said.device.scopes,
            audience=said.audience,
        )
    rates = (settings.caller_rate, settings.address_rate)
    callers, strangers = (Buckets(rate=rate, burst=BURST_SECONDS * rate) for rate in rates)
    return Identity(
        bearers=bearers,
        door=Door(bearers, origin=web.origin if web else None, callers=callers, strangers=strangers),
        provider=provider,
        web=web,
        device=device,
        token_seconds=settings.token_days * 86_400.0,
        overlap_seconds=settings.token_overlap_seconds,
    )
