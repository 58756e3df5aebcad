"""Settings of the dispatcher, from arguments or ``HPCPANDA_DISPATCHER_*`` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hpcpanda.domain.errors import InvalidValue


class DispatcherSettings(BaseSettings):
    """Everything an operator may choose about a dispatcher."""

    model_config = SettingsConfigDict(
        env_prefix="HPCPANDA_DISPATCHER_",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    state: Path
    """Folder of everything the dispatcher keeps: ``dispatcher.sqlite``, ``url``, ``user.token``,
    ``edges/<name>.token``. Created with mode 0700 when missing."""
    database: str | None = Field(default=None, repr=False)
    """Address of a PostgreSQL database, as ``postgresql://user:password@host:port/name`` or in any other form that libpq
    takes; the file ``dispatcher.sqlite`` in the state folder unless given. Dispatchers over one database work as one,
    each with a state folder of its own. Holds a password, perhaps: better in the environment than in an argument."""
    prune_days: float = Field(default=7.0, gt=0, le=36_500)
    """A task that has ended is kept with all its leases for so many days, in which late and repeated messages of edges
    are answered as at first; then only what can be asked for is kept."""
    archive_days: float = Field(default=90.0, gt=0, le=36_500)
    """A task that has ended is put away after so many days: it can be looked at as before, and is in nobody's way."""
    host: str = "127.0.0.1"
    """Address to listen on; loopback unless said otherwise."""
    port: int = Field(default=0, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one. The URL in use is written to ``<state>/url``."""
    lease_seconds: float = Field(default=300.0, gt=0, le=7 * 86_400)
    """How long a lease lasts from its grant or renewal, seconds."""
    sweep_seconds: float = Field(default=10.0, gt=0, le=3600)
    """Seconds between two searches for leases whose time is up."""
    edge_alive_seconds: float = Field(default=60.0, gt=0, le=86_400)
    """An edge not heard of for longer counts as gone, and its name may be taken by another instance."""
    shares: Path | None = None
    """File that says how computing is shared among groups and users; all are served alike unless given."""
    failures: Path | None = None
    """File of rules that say what failures come from and what is done about them, in the place of those that come with
    hpcpanda."""
    body_limit: int = Field(default=32 * 2**20, ge=1024)
    """Largest request body accepted, bytes."""
    grace_seconds: int = Field(default=10, ge=1, le=600)
    """On SIGTERM, how long requests in progress may take to finish."""
    identity: Path | None = None
    """Identity file: which identity provider is believed, and what its groups may do. Only the dispatcher's own tokens
    are known unless given."""
    token_days: float = Field(default=30.0, gt=0, le=3650)
    """Life, in days, of a token that an edge is given in place of another."""
    token_overlap_seconds: float = Field(default=3600.0, ge=60, le=30 * 86_400)
    """How long a token goes on that was exchanged for another."""
    caller_rate: float = Field(default=200.0, gt=0, le=1e6)
    """Requests a second that one user or edge may make in the long run; after a silence, those of five seconds at once.
    Each replica counts for itself."""
    address_rate: float = Field(default=20.0, gt=0, le=1e6)
    """Requests a second without a good token from one address (IPv6: one network of 64 bits), in the same way."""
    trusted_proxies: str = ""
    """Addresses of proxies, with commas, whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed."""
    tls_certificate: Path | None = None
    """Certificate chain (PEM) to serve HTTPS with; plain HTTP unless given."""
    tls_key: Path | None = None
    """Key (PEM) of the certificate."""
    user_name: str = "local"
    """Owner that the token in ``user.token`` stands for."""
    edge_name: str = "local"
    """Edge that the token in ``edges/<name>.token`` written at the first start stands for."""

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together, or neither is")
        return self

    @property
    def database_file(self) -> Path:
        """The SQLite file."""
        return self.state / "dispatcher.sqlite"

    @property
    def url_file(self) -> Path:
        """Where the URL of the running dispatcher is written."""
        return self.state / "url"

    @property
    def user_token_file(self) -> Path:
        """Where the first user token is written."""
        return self.state / "user.token"

    def edge_token_file(self, name: str) -> Path:
        """Where the token of the edge ``name`` is written."""
        return self.state / "edges" / f"{name}.token"


def load_settings(**chosen: Any) -> DispatcherSettings:  # noqa: ANN401 - any setting
    """The settings from arguments and the environment.

    Raises:
        InvalidValue: one of them is wrong; the message names the variable.
    """
    try:
        return DispatcherSettings(**chosen)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = "_".join(map(str, first["loc"])).upper()
        raise InvalidValue(f"HPCPANDA_DISPATCHER_{name}", f"{first['msg']}: {first['input']!r}") from error
