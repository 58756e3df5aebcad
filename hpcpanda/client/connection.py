"""Where the dispatcher is and which token to show: options, environment, or the embedded default's state folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.errors import Unauthenticated, Unavailable

STATE_VARIABLE = "HPCPANDA_STATE"
DISPATCHER_VARIABLE = "HPCPANDA_DISPATCHER"
TOKEN_FILE_VARIABLE = "HPCPANDA_TOKEN_FILE"  # noqa: S105 - the name of a variable


def state_root() -> Path:
    """Folder of everything hpcpanda keeps for this user: ``$HPCPANDA_STATE`` or ``~/.local/state/hpcpanda``."""
    return Path(os.environ.get(STATE_VARIABLE) or "~/.local/state/hpcpanda").expanduser()


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A dispatcher's address and the file with the token for it."""

    url: str | None = None
    token_file: Path | None = None

    def open(self) -> DispatcherClient:
        """A client for plain code.

        Raises:
            Unavailable: no address was given and no dispatcher of this user runs.
            Unauthenticated: the token file cannot be read.
        """
        folder = state_root() / "dispatcher"
        url = self.url
        if url is None:
            try:
                url = (folder / "url").read_text().strip()
            except OSError:
                raise Unavailable(
                    f"no dispatcher is known: give --dispatcher or {DISPATCHER_VARIABLE}, "
                    "or start one here with 'hpcpanda dispatcher run'"
                ) from None
        token_file = self.token_file or folder / "user.token"
        try:
            token = token_file.read_text(errors="replace").strip()
        except OSError as problem:
            raise Unauthenticated(
                f"the token cannot be read: {problem.strerror}: {token_file}; give --token-file or {TOKEN_FILE_VARIABLE}"
            ) from problem
        return DispatcherClient(url, token)
