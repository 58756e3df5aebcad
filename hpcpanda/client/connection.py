"""Where the dispatcher is and which token to show: options, environment, or the embedded default's state folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hpcpanda.client.credentials import CredentialFile, LoggedIn
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.errors import Unauthenticated, Unavailable

STATE_VARIABLE = "HPCPANDA_STATE"
DISPATCHER_VARIABLE = "HPCPANDA_DISPATCHER"
TOKEN_FILE_VARIABLE = "HPCPANDA_TOKEN_FILE"  # noqa: S105 - the name of a variable
CA_FILE_VARIABLE = "HPCPANDA_CA_FILE"


def state_root() -> Path:
    """Folder of everything hpcpanda keeps for this user: ``$HPCPANDA_STATE`` or ``~/.local/state/hpcpanda``."""
    return Path(os.environ.get(STATE_VARIABLE) or "~/.local/state/hpcpanda").expanduser()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A dispatcher's address and the file with the token for it."""

    url: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    """Certificates (PEM) to believe; those of the system when not given."""

    def address(self) -> str:
        """URL of the dispatcher.

        Raises:
            Unavailable: none was given and no dispatcher of this user runs.
        """
        if self.url is not None:
            return self.url
        try:
            return (state_root() / "dispatcher" / "url").read_text().strip()
        except OSError:
            raise Unavailable(
                f"no dispatcher is known: give --dispatcher or {DISPATCHER_VARIABLE}, "
                "or start one here with 'hpcpanda dispatcher run'"
            ) from None

    def credentials(self) -> CredentialFile:
        """Where the login at the dispatcher is kept."""
        return CredentialFile(state_root(), self.address())

    def open_unknown(self) -> DispatcherClient:
        """A client that shows no token."""
        return DispatcherClient(self.address(), ca_file=self.ca_file)

    def open(self) -> DispatcherClient:
        """A client for plain code: with the token file given, else the login, else the token left by a dispatcher here.

        Raises:
            Unavailable: no address was given and no dispatcher of this user runs.
            Unauthenticated: the token file cannot be read.
        """
        url = self.address()
        login = self.credentials()
        if self.token_file is None and login.read() is not None:
            return DispatcherClient(url, LoggedIn(login, ca_file=self.ca_file), ca_file=self.ca_file)
        token_file = self.token_file or state_root() / "dispatcher" / "user.token"
        try:
            token = token_file.read_text(errors="replace").strip()
        except OSError as problem:
            raise Unauthenticated(
                f"the token cannot be read: {problem.strerror}: {token_file}; "
                f"give --token-file or {TOKEN_FILE_VARIABLE}, or run 'hpcpanda login'"
            ) from problem
        return DispatcherClient(url, token, ca_file=self.ca_file)
