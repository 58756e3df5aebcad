"""Log in with a command line: the device authorisation grant (RFC 8628).

The user opens an address in any browser and types a code; meanwhile the command asks the identity provider whether they
have.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from hpcpanda.client.credentials import TIMEOUT_S, Credentials, post_form, trust
from hpcpanda.domain.errors import Forbidden, Unauthenticated, Unavailable
from hpcpanda.domain.identity import IdentityProvider

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL_S = 5.0
"""Between two questions, unless the provider says otherwise (RFC 8628 section 3.2)."""
SLOWER_S = 5.0
"""So much longer after ``slow_down`` (section 3.5)."""
MAX_LIFE_S = 1800.0
"""No code is waited for longer."""
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCode:
    """What the user has to do, and what is asked meanwhile."""

    device_code: str
    user_code: str
    address: str
    """Where to type the code."""
    complete_address: str | None
    """The same with the code in it."""
    interval_s: float
    expires: float
    """Unix seconds."""


class DeviceLogin:
    """One login at the provider of a dispatcher.

    Args:
        dispatcher: URL of the dispatcher.
        provider: what the dispatcher says of its provider.
        ca_file: certificates (PEM) to believe; those of the system when not given.
        sleep: waits so many seconds.

    Raises:
        Unavailable: the provider does not answer, or does not log in devices.
    """

    def __init__(
        self,
        dispatcher: str,
        provider: IdentityProvider,
        *,
        ca_file: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._dispatcher = dispatcher
        self._provider = provider
        self._ca_file = ca_file
        self._sleep = sleep
        said = self._discover()
        self._device_endpoint = _endpoint(said, "device_authorization_endpoint")
        self._token_endpoint = _endpoint(said, "token_endpoint")

    def begin(self) -> DeviceCode:
        """Ask for a code.

        Raises:
            Unavailable: the provider does not answer as it should.
            Forbidden: it refuses this client.
        """
        form = {
            "client_id": self._provider.client_id,
            "scope": " ".join(self._provider.scopes),
            "resource": self._provider.audience,
        }
        status, said = post_form(self._device_endpoint, form, ca_file=self._ca_file)
        if status != 200:
            raise Forbidden(f"the identity provider refuses: {_why(said)}")
        try:
            complete = said.get("verification_uri_complete")
            return DeviceCode(
                device_code=str(said["device_code"]),
                user_code=str(said["user_code"]),
                address=str(said["verification_uri"]),
                complete_address=None if complete is None else str(complete),
                interval_s=max(0.0, float(said.get("interval", INTERVAL_S))),
                expires=time.time() + min(float(said["expires_in"]), MAX_LIFE_S),
            )
        except (KeyError, TypeError, ValueError) as problem:
            raise Unavailable(f"the identity provider's answer is not understood: no {problem}") from None

    def finish(self, code: DeviceCode) -> Credentials:
        """Wait until the user has typed the code.

        Raises:
            Forbidden: the user, or the provider, said no.
            Unauthenticated: nobody typed it in time.
        """
        form = {
            "grant_type": GRANT,
            "device_code": code.device_code,
            "client_id": self._provider.client_id,
            "resource": self._provider.audience,
        }
        interval_s = code.interval_s
        while time.time() < code.expires:
            self._sleep(interval_s)
            try:
                status, said = post_form(self._token_endpoint, form, ca_file=self._ca_file)
            except Unavailable:
                interval_s = min(2 * max(interval_s, 1.0), 60.0)
                continue
            if status == 200:
                return self._credentials(said)
            match said.get("error"):
                case "authorization_pending":
                    continue
                case "slow_down":
                    interval_s += SLOWER_S
                case "expired_token":
                    break
                case _:
                    raise Forbidden(f"the identity provider did not log you in: {_why(said)}")
        raise Unauthenticated("the code was not typed in time; run 'hpcpanda login' again")

    def _credentials(self, said: dict[str, Any]) -> Credentials:
        empty = Credentials(
            dispatcher=self._dispatcher,
            token_endpoint=self._token_endpoint,
            client_id=self._provider.client_id,
            audience=self._provider.audience,
            access_token="",
            expires=0.0,
        )
        return empty.renewed(said, time.time())

    def _discover(self) -> dict[str, Any]:
        url = self._provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
        require_private(url)
        try:
            with httpx2.Client(timeout=TIMEOUT_S, verify=trust(self._ca_file)) as http:
                said = http.get(url).raise_for_status().json()
        except (httpx2.HTTPError, ValueError) as error:
            raise Unavailable(f"the identity provider does not answer at {url}: {error}") from error
        if not isinstance(said, dict) or said.get("issuer") != self._provider.issuer:
            raise Unavailable(f"the identity provider at {url} says it is another")
        return said


def require_private(url: str) -> None:
    """Refuse an address to which secrets would go in the clear.

    Raises:
        Unavailable: it is neither https nor on this machine.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise Unavailable(f"{url} is not https; nothing secret is sent there")


def _endpoint(said: dict[str, Any], name: str) -> str:
    url = said.get(name)
    if not isinstance(url, str):
        raise Unavailable(f"the identity provider has no {name}: it does not log in command lines")
    require_private(url)
    return url


def _why(said: dict[str, Any]) -> str:
    return str(said.get("error_description") or said.get("error") or "no reason given")[:200]
