"""Settings of the dispatcher, from arguments or ``HPCPANDA_DISPATCHER_*`` environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
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
    body_limit: int = Field(default=32 * 2**20, ge=1024)
    """Largest request body accepted, bytes."""
    grace_seconds: int = Field(default=10, ge=1, le=600)
    """On SIGTERM, how long requests in progress may take to finish."""
    user_name: str = "local"
    """Owner that the token in ``user.token`` stands for."""
    edge_name: str = "local"
    """Edge that the token in ``edges/<name>.token`` written at the first start stands for."""

    @property
    def database(self) -> Path:
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
