"""Who is calling, what the identity provider is, and who did what: bodies of the REST API under /v1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoAmI:
    """The caller, as the dispatcher sees them."""

    __pydantic_config__: ClassVar = _STRICT

    name: str
    """Name of the user or the edge."""
    is_edge: bool
    """It is an edge."""
    scopes: tuple[str, ...]
    """What the token allows."""
    groups: tuple[str, ...]
    """Groups whose tasks the caller sees."""
    sees_all: bool
    """The caller sees the tasks of everybody."""
    created: float | None
    """When the token was made, Unix seconds, if it is one of the dispatcher's own."""
    expires: float | None
    """When the token ends, Unix seconds; None for never."""
    now: float
    """The dispatcher's time, Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProvider:
    """Where and how the command line logs in."""

    __pydantic_config__: ClassVar = _STRICT

    issuer: str
    client_id: str
    """Name of the command line at the provider."""
    scopes: tuple[str, ...]
    """What to ask for."""
    audience: str
    """Audience that the access token must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token in place of the one that was shown."""

    __pydantic_config__: ClassVar = _STRICT

    token: str
    """The new token; it cannot be shown again."""
    expires: float
    """When it ends, Unix seconds."""
    old_expires: float
    """When the one that was shown ends, Unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One thing that somebody did."""

    __pydantic_config__: ClassVar = _STRICT

    entry: int
    at: float
    """When, Unix seconds."""
    who: str
    """``user:NAME`` or ``edge:NAME``."""
    did: str
    """Method and path of the request."""
    target: str
    """What it was done to, as far as the path does not say it."""
    address: str
    """Where the request came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Entries of the audit log, newest first."""

    __pydantic_config__: ClassVar = _STRICT

    entries: tuple[AuditEntry, ...]
    next_before: int | None = None
    """Pass as ``before`` for the next page; None when there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """Tokens that were taken back."""

    __pydantic_config__: ClassVar = _STRICT

    tokens: int
    sessions: int
