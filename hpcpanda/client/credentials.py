"""What ``hpcpanda login`` has brought: kept in a file that only its owner reads, renewed before it ends.

A refresh token is exchanged after RFC 6749 section 6; a provider may give a new one each time, so that a lock keeps
two commands from using the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import httpx2
from pydantic import TypeAdapter, ValidationError

from hpcpanda.domain.errors import CorruptData, Unauthenticated, Unavailable

EARLY_SECONDS = 60.0
"""A token that ends sooner is renewed before it is used."""
TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A login at one dispatcher."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    dispatcher: str
    """URL of the dispatcher."""
    token_endpoint: str
    client_id: str
    audience: str
    access_token: str
    expires: float
    """When the access token ends, Unix seconds."""
    refresh_token: str | None = None

    def renewed(self, said: dict[str, Any], now: float) -> Credentials:
        """With what a token endpoint has answered.

        Raises:
            Unavailable: the answer is none of a token endpoint.
        """
        token, refresh = said.get("access_token"), said.get("refresh_token")
        lives = said.get("expires_in", 300)
        if not isinstance(token, str) or isinstance(lives, bool) or not isinstance(lives, int | float):
            raise Unavailable("the identity provider's answer has no access token")
        return replace(
            self,
            access_token=token,
            expires=now + lives,
            refresh_token=refresh if isinstance(refresh, str) else self.refresh_token,
        )


_ADAPTER: TypeAdapter[Credentials] = TypeAdapter(Credentials)


class CredentialFile:
    """The credentials of one dispatcher under a state folder."""

    def __init__(self, root: Path, dispatcher: str) -> None:
        name = hashlib.sha256(dispatcher.rstrip("/").encode()).hexdigest()[:32]
        self._path = root / "credentials" / f"{name}.json"

    def read(self) -> Credentials | None:
        """What is kept; None when nobody has logged in.

        Raises:
            CorruptData: the file is not understood.
        """
        try:
            return _ADAPTER.validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            raise CorruptData(f"{self._path} cannot be used; remove it and log in again") from None

    def write(self, credentials: Credentials) -> None:
        """Keep credentials, whole or not at all."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_ADAPTER.dump_json(credentials))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)

    def forget(self) -> bool:
        """Remove what is kept; tells whether there was anything."""
        there = self._path.exists()
        self._path.unlink(missing_ok=True)
        return there

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the file against other commands of the same user."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class LoggedIn(httpx2.Auth):
    """Shows the access token of a login with every request, and renews it in time.

    Args:
        file: where the login is kept.
        ca_file: certificates (PEM) to believe; those of the system when not given.
    """

    def __init__(self, file: CredentialFile, *, ca_file: Path | None = None) -> None:
        self._file = file
        self._ca_file = ca_file

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """For plain code."""
        request.headers["Authorization"] = f"Bearer {self.token()}"
        yield request

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """For asyncio."""
        request.headers["Authorization"] = f"Bearer {await asyncio.to_thread(self.token)}"
        yield request

    def token(self) -> str:
        """An access token that goes on for a while.

        Raises:
            Unauthenticated: nobody has logged in, or the login has ended.
            Unavailable: the identity provider does not answer.
        """
        kept = self._kept()
        if kept.expires - time.time() > EARLY_SECONDS:
            return kept.access_token
        with self._file.alone():
            kept = self._kept()  # another command may have renewed it meanwhile
            if kept.expires - time.time() <= EARLY_SECONDS:
                kept = self._renew(kept)
                self._file.write(kept)
        return kept.access_token

    def _kept(self) -> Credentials:
        kept = self._file.read()
        if kept is None:
            raise Unauthenticated("nobody is logged in here; run 'hpcpanda login'")
        return kept

    def _renew(self, kept: Credentials) -> Credentials:
        now = time.time()
        if kept.refresh_token is None:
            if kept.expires > now:
                return kept
            raise Unauthenticated("the login has ended; run 'hpcpanda login' again")
        form = {
            "grant_type": "refresh_token",
            "refresh_token": kept.refresh_token,
            "client_id": kept.client_id,
            "resource": kept.audience,
        }
        status, said = post_form(kept.token_endpoint, form, ca_file=self._ca_file)
        if status != 200:
            raise Unauthenticated(
                f"the login has ended ({str(said.get('error'))[:80]}); run 'hpcpanda login' again"
            )
        return kept.renewed(said, now)


def post_form(url: str, form: dict[str, str], *, ca_file: Path | None) -> tuple[int, dict[str, Any]]:
    """Send a form to an identity provider; status and answer.

    Raises:
        Unavailable: it does not answer, or not with JSON.
    """
    try:
        with httpx2.Client(timeout=TIMEOUT_S, verify=trust(ca_file)) as http:
            answer = http.post(url, data=form)
            said = answer.json()
    except (httpx2.HTTPError, ValueError) as error:
        raise Unavailable(
            f"the identity provider at {url} does not answer: {type(error).__name__}"
        ) from error
    if not isinstance(said, dict) or answer.status_code >= 500:
        raise Unavailable(f"the identity provider at {url} answers {answer.status_code}")
    return answer.status_code, said


def trust(ca_file: Path | None) -> Any:  # noqa: ANN401 - a context, or True for the system's certificates
    """Whose certificates are believed.

    Raises:
        Unavailable: the file cannot be used.
    """
    if ca_file is None:
        return True
    import ssl

    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except OSError as problem:
        raise Unavailable(f"the certificates in {ca_file} cannot be used: {problem}") from problem
