"""The identity file: which identity provider is believed, and what its groups may do here."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.dispatcher.identity.scopes import Scope
from hpcpanda.dispatcher.wording import field_errors
from hpcpanda.domain.errors import InvalidValue, Unauthenticated
from hpcpanda.domain.validation import require_name, require_nonempty

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}
MAX_GROUPS = 1000
"""Most groups looked at in a token."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def require_safe_url(field: str, url: str) -> None:
    """Accept https, and http on this machine only: whoever can change the answers can be anybody."""
    try:
        parts = urlsplit(url)
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    except ValueError:
        safe = False
    if not safe or not parts.hostname:
        raise InvalidValue(field, f"{url[:200]!r} must begin with https:// (http:// only on this machine)")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebClient:
    """This dispatcher as a client of the provider, for logging in with a browser."""

    __pydantic_config__: ClassVar = _STRICT

    client_id: str
    """Name under which the provider knows the dispatcher."""
    address: str
    """Address at which browsers reach the dispatcher; ``<address>/v1/auth/callback`` is to be registered."""
    client_secret_file: str | None = None
    """File with the client's secret; without one PKCE alone protects the exchange."""
    scopes: tuple[str, ...] = ("openid",)
    """What is asked of the provider."""

    def __post_init__(self) -> None:
        require_safe_url("address", self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceClient:
    """The command line as a client of the provider, for ``hpcpanda login``."""

    __pydantic_config__: ClassVar = _STRICT

    client_id: str
    """Name under which the provider knows the command line; it has no secret."""
    scopes: tuple[str, ...] = ("openid", "offline_access")
    """What is asked of the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the members of one of the provider's groups may do."""

    __pydantic_config__: ClassVar = _STRICT

    group: str
    """Name of the group at the provider, as ``/epic/production``; ``/epic/*`` is ``/epic`` and all below it."""
    scopes: tuple[Scope, ...] = ()
    """Scopes given to its members."""
    team: str | None = None
    """Group, in task files, whose tasks its members see and for which they may submit."""

    def __post_init__(self) -> None:
        require_nonempty("group", self.group)
        if self.team is not None:
            require_name("team", self.team)
        if Scope.EDGE in self.scopes:
            raise InvalidValue("scopes", "'edge' is given to clients, under [[edge]], never to a group")

    def covers(self, group: str) -> bool:
        """Whether a group of the provider is meant."""
        if self.group.endswith("/*"):
            root = self.group[:-2]
            return group == root or group.startswith(root + "/")
        return group == self.group


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeClient:
    """An edge that logs in at the provider, by client credentials."""

    __pydantic_config__: ClassVar = _STRICT

    client_id: str
    """Name under which the provider knows the edge."""
    name: str
    """Name of the edge here."""

    def __post_init__(self) -> None:
        require_name("name", self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityFile:
    """All that an identity file may say."""

    __pydantic_config__: ClassVar = _STRICT

    issuer: str
    """The provider's issuer, exactly as its tokens say it."""
    audience: str
    """What the provider's access tokens for this dispatcher have as audience."""
    name_claim: str = "sub"
    """Claim that names a user here. Only ``sub`` is promised never to be given to somebody else."""
    group_claims: tuple[str, ...] = ("wlcg.groups", "groups")
    """Claims that list a user's groups."""
    web: WebClient | None = None
    """Logging in with a browser."""
    device: DeviceClient | None = None
    """Logging in with the command line."""
    grant: tuple[Grant, ...] = ()
    """What groups may do."""
    edge: tuple[EdgeClient, ...] = ()
    """Edges that log in at the provider."""

    def __post_init__(self) -> None:
        require_safe_url("issuer", self.issuer)
        require_nonempty("audience", self.audience)
        for client in (self.web, self.device):
            if client is not None and client.client_id == self.audience:
                raise InvalidValue(
                    "audience", "is a client's name: ID tokens would be taken for access tokens"
                )
        for listed in ([e.client_id for e in self.edge], [e.name for e in self.edge]):
            if len(set(listed)) != len(listed):
                raise InvalidValue("edge", "a client or a name is listed twice")

    def principal(self, claims: Mapping[str, Any]) -> Principal:
        """Who the bearer of a token with these, verified, claims is.

        A token that a client got for itself (RFC 6749 section 4.4: its subject is the client, RFC 9068 section 2.2) is
        an edge's, or nobody's.

        Raises:
            Unauthenticated: the claims name nobody whom this dispatcher knows.
        """
        expires = float(claims["exp"])
        client = claims.get("client_id")
        if client is not None and claims.get("sub") in (None, client):
            for edge in self.edge:
                if edge.client_id == client:
                    scopes = frozenset({Scope.SELF, Scope.EDGE})
                    return Principal(name=edge.name, scopes=scopes, expires=expires)
            raise Unauthenticated(
                f"client {str(client)[:128]!r} is no edge in the dispatcher's identity file"
            )
        name = claims.get(self.name_claim)
        try:
            require_name(self.name_claim, name if isinstance(name, str) else "")
        except InvalidValue as problem:
            raise Unauthenticated(f"the token cannot name its user: {problem}") from None
        groups = self._groups(claims)
        grants = [g for g in self.grant if any(g.covers(group) for group in groups)]
        return Principal(
            name=str(name),
            scopes=frozenset({Scope.SELF}).union(*(g.scopes for g in grants)),
            groups=frozenset(g.team for g in grants if g.team is not None),
            expires=expires,
        )

    def _groups(self, claims: Mapping[str, Any]) -> list[str]:
        found: list[str] = []
        for name in self.group_claims:
            listed = claims.get(name, [])
            if not isinstance(listed, list) or not all(isinstance(group, str) for group in listed):
                raise Unauthenticated(f"claim {name!r} of the token is no list of group names")
            found += listed
        return found[:MAX_GROUPS]


_ADAPTER: TypeAdapter[IdentityFile] = TypeAdapter(IdentityFile)


def load_identity(path: Path) -> IdentityFile:
    """The identity file at ``path``.

    Raises:
        InvalidValue: it cannot be read, is no TOML, or says what is not understood.
    """
    try:
        return _ADAPTER.validate_python(tomllib.loads(path.read_text()))
    except OSError as problem:
        raise InvalidValue("identity file", f"{path}: {problem.strerror}") from problem
    except ValidationError as error:
        told = field_errors([dict(each) for each in error.errors()])
        raise InvalidValue("identity file", f"{path}: {'; '.join(told)}") from None
    except ValueError as problem:
        raise InvalidValue("identity file", f"{path} is not TOML: {problem}") from None
