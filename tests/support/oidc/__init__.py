"""A real, certified OpenID Connect provider (npm: oidc-provider) on loopback, and a browser to log in with."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

HERE = Path(__file__).parent
AUDIENCE = "https://dispatcher.example"
WEB_SECRET = "secret-of-the-web-client-0123456789abcdef"
EDGE_SECRET = "secret-of-the-edge-client-0123456789abcdef"


def provider_folder() -> Path:
    """Where oidc-provider is installed, in the versions that package.json pins; skips where that cannot be."""
    if not (shutil.which("node") and shutil.which("npm")):
        if os.geteuid() == 0 and shutil.which("apt-get"):
            subprocess.run(
                ["apt-get", "install", "-y", "-q", "nodejs", "npm"], check=False, capture_output=True
            )
        if not (shutil.which("node") and shutil.which("npm")):
            pytest.skip("node and npm are needed: apt-get install nodejs npm")
    wanted = (HERE / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()) / "hpcpanda-tests"
    folder = cache / f"oidc-{os.getuid()}-{hashlib.sha256(wanted).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            shutil.copy(HERE / "package.json", folder)
            npm = ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(npm, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
            if done.returncode != 0:
                pytest.skip(f"npm cannot install oidc-provider: {done.stderr[-500:]}")
            (folder / "installed").touch()
        shutil.copy(HERE / "provider.mjs", folder)
    return folder


def new_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})


@dataclass(kw_only=True)
class OidcProvider:
    """A provider that runs; its private keys are at hand, so that a test can make any token."""

    redirect_uri: str
    keys: list[RSAKey] = field(default_factory=lambda: [new_key("first")])
    groups: dict[str, list[str]] = field(default_factory=dict)
    seconds: int = 600
    port: int = 0
    issuer: str = ""
    process: subprocess.Popen[str] | None = None

    def start(self) -> OidcProvider:
        said = {
            "port": self.port,
            "keys": [key.as_dict(private=True) for key in self.keys],
            "audience": AUDIENCE,
            "groups": self.groups,
            "seconds": self.seconds,
            "clients": [
                {
                    "client_id": "dispatcher",
                    "client_secret": WEB_SECRET,
                    "redirect_uris": [self.redirect_uri],
                    "grant_types": ["authorization_code"],
                },
                {
                    "client_id": "command-line",
                    "token_endpoint_auth_method": "none",
                    "application_type": "native",
                    "redirect_uris": [],
                    "response_types": [],
                    "grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
                },
                *(
                    {
                        "client_id": name,
                        "client_secret": EDGE_SECRET,
                        "redirect_uris": [],
                        "response_types": [],
                        "grant_types": ["client_credentials"],
                    }
                    for name in ("edge-client", "stranger-client")
                ),
            ],
        }
        folder = provider_folder()
        self.process = subprocess.Popen(
            ["node", "provider.mjs", json.dumps(said)],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.issuer = self.process.stdout.readline().strip()
        assert self.issuer.startswith("http://127.0.0.1:"), "the provider did not start"
        self.port = int(self.issuer.rpartition(":")[2])
        return self

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def restarted_with(self, *keys: RSAKey) -> OidcProvider:
        """The same provider with other keys, at the same address."""
        self.stop()
        return replace(self, keys=list(keys), process=None).start()

    def client_token(self, client: str) -> str:
        """An access token that a client gets for itself."""
        form = {"grant_type": "client_credentials", "resource": AUDIENCE}
        answer = httpx2.post(f"{self.issuer}/token", data=form, auth=(client, EDGE_SECRET))
        return str(answer.raise_for_status().json()["access_token"])

    def claims(self, user: str, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": AUDIENCE, "sub": user, "client_id": "command-line", "iat": now}
        return {**claims, "exp": now + 300, "wlcg.groups": self.groups.get(user, []), **more}

    def sign(self, claims: dict[str, Any], *, key: RSAKey | None = None, **header: Any) -> str:
        """A token as the provider makes them, with any claims."""
        key = key or self.keys[0]
        return jwt.encode({"alg": "RS256", "kid": key.kid, "typ": "at+jwt", **header}, claims, key)


class Browser:
    """Goes where it is sent, keeps cookies, fills in the provider's forms."""

    def __init__(self) -> None:
        self.http = httpx2.Client(follow_redirects=False, timeout=20)

    def walk(self, url: str, *, user: str, until: str) -> str:
        """Follow redirections and log in as ``user``; the first address that begins with ``until``."""
        answer = self.http.get(url)
        for _ in range(20):
            if answer.is_redirect:
                where = urljoin(str(answer.url), answer.headers["location"])
                if where.startswith(until):
                    return where
                answer = self.http.get(where)
                continue
            if "Sign-in Success" in answer.text:
                return str(answer.url)
            answer = self._submit(answer, user)
        raise AssertionError("the login does not come to an end")

    def _submit(self, page: httpx2.Response, user: str) -> httpx2.Response:
        assert page.status_code == 200, page.text[:500]
        form = re.search(r"<form[^>]*action=\"([^\"]+)\".*?</form>", page.text, re.DOTALL)
        assert form, page.text[:2000]
        fields = {}
        for tag in re.findall(r"<input[^>]*>", form[0]):
            attributes = dict(re.findall(r"(\w+)=\"([^\"]*)\"", tag))
            if "name" in attributes:
                fields[attributes["name"]] = unescape(attributes.get("value", ""))
        if fields.get("prompt") == "login":
            fields |= {"login": user, "password": "any"}
        if "/device" in str(page.url) or "/device" in form[1]:
            fields.setdefault("confirm", "yes")
        return self.http.post(urljoin(str(page.url), unescape(form[1])), data=fields)
