"""Logging in at a real identity provider, and every way to be refused."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import OctKey
from support.dispatcher import RunningDispatcher, running_dispatcher, spec
from support.oidc import AUDIENCE, EDGE_SECRET, WEB_SECRET, Browser, OidcProvider, new_key

from hpcpanda.client.credentials import CredentialFile, LoggedIn
from hpcpanda.client.login import DeviceLogin
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.errors import Forbidden, NotFound, Unauthenticated
from hpcpanda.domain.exchange import EdgeRegistration

GROUPS = {"ada": ["/exp/production", "/exp"], "grace": ["/exp"], "mallory": ["/other"]}


@dataclass
class World:
    """A provider, and a dispatcher that believes it."""

    provider: OidcProvider
    dispatcher: RunningDispatcher

    @property
    def url(self) -> str:
        return self.dispatcher.url

    def client(self, user: str) -> DispatcherClient:
        return DispatcherClient(self.url, self.provider.sign(self.provider.claims(user)))

    def refusal(self, token: str) -> str:
        with DispatcherClient(self.url, token) as client, pytest.raises(Unauthenticated) as caught:
            client.whoami()
        return str(caught.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("oidc")
    address = f"http://127.0.0.1:{free_port()}"
    provider = OidcProvider(redirect_uri=f"{address}/v1/auth/callback", groups=GROUPS).start()
    (folder / "secret").write_text(WEB_SECRET)
    identity = folder / "identity.toml"
    identity.write_text(f"""
issuer = "{provider.issuer}"
audience = "{AUDIENCE}"
[web]
client_id = "dispatcher"
client_secret_file = "{folder / "secret"}"
address = "{address}"
[device]
client_id = "command-line"
[[grant]]
group = "/exp/*"
scopes = ["tasks:read", "edges:read"]
[[grant]]
group = "/exp/production"
scopes = ["tasks:write"]
team = "production"
[[edge]]
client_id = "edge-client"
name = "perlmutter"
""")
    port = int(address.rpartition(":")[2])
    made = World(provider, None)  # type: ignore[arg-type]
    with running_dispatcher(folder / "state", identity=identity, port=port, address_rate=1000) as dispatcher:
        made.dispatcher = dispatcher
        yield made
    made.provider.stop()


def test_groups_decide_what_a_user_may_do(world: World) -> None:
    """Production writes and reads, a member of the experiment reads, a stranger may only ask who they are."""
    with world.client("ada") as ada, world.client("grace") as grace, world.client("mallory") as mallory:
        me = ada.whoami()
        assert (me.name, me.groups, me.sees_all) == ("ada", ("production",), False)
        assert me.scopes == ("edges:read", "self", "tasks:read", "tasks:write")
        task = ada.submit(spec(10))
        assert task.owner == "ada"
        with pytest.raises(Forbidden, match="tasks:write"):
            grace.submit(spec(10))
        assert mallory.whoami().scopes == ("self",)
        with pytest.raises(Forbidden, match="tasks:read"):
            mallory.tasks()


def test_a_forged_token_is_refused(world: World) -> None:
    """Another key under the provider's key name, and a body changed after signing."""
    p = world.provider
    assert "signature" in world.refusal(p.sign(p.claims("ada"), key=new_key("first")))
    head, _, signature = p.sign(p.claims("grace")).split(".")
    body = base64.urlsafe_b64encode(json.dumps(p.claims("ada")).encode()).decode().rstrip("=")
    assert "signature" in world.refusal(f"{head}.{body}.{signature}")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"exp": 1_600_000_000}, "expired"),
        ({"exp": None}, "'exp'"),
        ({"exp": "tomorrow"}, "'exp'"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"aud": "https://other.example"}, "audience"),
        ({"aud": ["dispatcher"]}, "audience"),
        ({"iss": "https://other.example"}, "issuer"),
        ({"sub": "../root"}, "name its user"),
        ({"sub": None}, "no edge"),
        ({"wlcg.groups": "/exp/production"}, "no list"),
    ],
)
def test_a_token_that_is_not_for_us_now_is_refused(world: World, change: dict[str, object], why: str) -> None:
    """Signed by the provider, yet expired, early, of another issuer or audience, or naming nobody."""
    assert why in world.refusal(world.provider.sign({**world.provider.claims("ada"), **change}))


def test_a_token_chooses_no_algorithm(world: World) -> None:
    """alg=none and HS256 keyed with the provider's public key are refused by their name."""
    p = world.provider

    def raw(header: dict[str, str]) -> str:
        parts = (json.dumps(part).encode() for part in (header, p.claims("ada")))
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)

    for none in ("none", "None", "nOnE"):
        assert "not accepted" in world.refusal(raw({"alg": none, "kid": "first"}) + ".")
    pem = p.keys[0].public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem, json.dumps(p.keys[0].as_dict(private=False)).encode()):
        shared = OctKey.import_key(base64.urlsafe_b64encode(secret).decode().rstrip("="))
        body = jwt.encode({"alg": "HS256", "kid": "first"}, p.claims("ada"), OctKey.generate_key(256))
        forged = jwt.encode({"alg": "HS256", "kid": "first"}, p.claims("ada"), OctKey.import_key({"kty": "oct", "k": shared.as_dict(private=True)["k"]}))  # fmt: skip
        assert "HS256" in world.refusal(forged)
        assert "HS256" in world.refusal(body)
    assert "type" in world.refusal(p.sign(p.claims("ada"), typ="logout+jwt"))


@pytest.mark.parametrize("rubbish", ["a.b.c", "..", "e30.e30.", "W10.e30.x", "x" * 20_000 + ".y.z"])
def test_rubbish_is_refused(world: World, rubbish: str) -> None:
    """What only looks like a signed token is refused as any other, not with an error of the server."""
    assert world.refusal(rubbish)


def test_users_see_what_their_groups_allow(world: World) -> None:
    """A team's tasks are seen by its members; nobody else learns that they exist, by list or by number."""
    with world.client("ada") as ada, world.client("grace") as grace, world.dispatcher.user() as local:
        mine = ada.submit(spec(10, name="of-ada"))
        with pytest.raises(NotFound):
            grace.task(mine.task_id)
        for look in (grace.outputs, grace.explain, grace.failures):
            with pytest.raises(NotFound):
                look(mine.task_id)
        assert mine.task_id not in [t.task_id for t in grace.tasks().tasks]
        assert mine.task_id in [t.task_id for t in ada.tasks().tasks]
        assert local.task(mine.task_id).owner == "ada"
        theirs = local.submit(spec(10, name="of-local"))
        with pytest.raises(NotFound):
            ada.cancel(theirs.task_id)


def test_an_edge_logs_in_at_the_provider_and_sees_only_its_site(world: World) -> None:
    """Client credentials give an edge its own name and no other; a client that is no edge is nobody."""
    with DispatcherClient(world.url, world.provider.client_token("edge-client")) as edge:
        assert edge.whoami().name == "perlmutter"
        edge.register_edge("perlmutter", EdgeRegistration(instance="p-1", cores=8))
        with pytest.raises(Forbidden, match="'perlmutter'"):
            edge.register_edge("polaris", EdgeRegistration(instance="p-1", cores=8))
        for look in (edge.tasks, edge.edges):
            with pytest.raises(Forbidden):
                look()
    assert "no edge" in world.refusal(world.provider.client_token("stranger-client"))


def login(world: World, browser: Browser, user: str, after: str = "/v1/auth/whoami") -> str:
    """As far as the provider's answer, which is not yet given to the dispatcher."""
    return browser.walk(
        f"{world.url}/v1/auth/login?next={after}", user=user, until=f"{world.url}/v1/auth/callback"
    )


def test_a_browser_logs_in(world: World) -> None:
    """Authorisation code with PKCE: a session in a cookie that scripts cannot read, and a way out."""
    browser = Browser()
    answer = browser.http.get(login(world, browser, "ada"))
    assert (answer.status_code, answer.headers["location"]) == (302, "/v1/auth/whoami")
    (cookie,) = (c for c in answer.headers.get_list("set-cookie") if c.startswith("hpcpanda_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    me = browser.http.get(f"{world.url}/v1/auth/whoami").json()
    assert (me["name"], me["groups"]) == ("ada", ["production"])

    for origin in ({}, {"Origin": "https://evil.example"}):
        assert browser.http.post(f"{world.url}/v1/auth/logout", headers=origin).status_code == 403
    session = browser.http.cookies["hpcpanda_session"]
    bearer = {"Authorization": f"Bearer {session}"}
    assert httpx2.get(f"{world.url}/v1/auth/whoami", headers=bearer).status_code == 401
    assert browser.http.post(f"{world.url}/v1/auth/logout", headers={"Origin": world.url}).status_code == 204
    again = httpx2.get(f"{world.url}/v1/auth/whoami", headers={"Cookie": f"hpcpanda_session={session}"})
    assert again.status_code == 401


def test_nothing_of_a_login_works_twice_or_elsewhere(world: World) -> None:
    """A replayed answer, one brought by another browser, a code with another login's state: each is refused."""
    browser = Browser()
    callback = login(world, browser, "ada")
    stranger = httpx2.get(callback)
    assert (stranger.status_code, "not begun" in stranger.text) == (401, True)
    state_cookie = browser.http.cookies.get("hpcpanda_login")
    assert browser.http.get(callback).status_code == 302
    replay = httpx2.get(callback, headers={"Cookie": f"hpcpanda_login={state_cookie}"})
    assert (replay.status_code, "finished before" in replay.text) == (401, True)

    code = parse_qs(urlsplit(callback).query)["code"][0]
    fresh = Browser()
    begun = fresh.http.get(f"{world.url}/v1/auth/login")
    state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
    spent = fresh.http.get(f"{world.url}/v1/auth/callback", params={"code": code, "state": state})
    assert (spent.status_code, "invalid_grant" in spent.text) == (401, True)

    other = Browser()
    stolen = parse_qs(urlsplit(login(world, other, "grace")).query)["code"][0]
    begun = fresh.http.get(f"{world.url}/v1/auth/login")
    state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
    mixed = fresh.http.get(f"{world.url}/v1/auth/callback", params={"code": stolen, "state": state})
    assert mixed.status_code == 401
    wrong = {"code": "x", "state": "y", "iss": "https://other.example"}
    assert fresh.http.get(f"{world.url}/v1/auth/callback", params=wrong).status_code == 401


@pytest.mark.parametrize(
    "where", ["https://evil.example", "//evil.example", "/\\evil.example", "evil", "/a\nb"]
)
def test_a_login_leads_nowhere_else(world: World, where: str) -> None:
    """The page to come back to is one of the dispatcher's own."""
    answer = httpx2.get(f"{world.url}/v1/auth/login", params={"next": where})
    assert (answer.status_code, "no path" in answer.text) == (422, True)


def test_the_command_line_logs_in_and_stays_so(world: World, tmp_path: Path) -> None:
    """Device flow: the user types a code in a browser; the token is renewed with a refresh token used once."""
    with DispatcherClient(world.url) as stranger:
        attempt = DeviceLogin(world.url, stranger.identity_provider(), sleep=lambda _: time.sleep(0.2))
    code = attempt.begin()
    brought: list[object] = []
    waiting = threading.Thread(target=lambda: brought.append(attempt.finish(code)))
    waiting.start()
    assert code.complete_address is not None
    Browser().walk(code.complete_address, user="ada", until="no address: device")
    waiting.join(20)
    (credentials,) = brought
    file = CredentialFile(tmp_path, world.url)
    file.write(credentials)  # type: ignore[arg-type]
    kept = next((tmp_path / "credentials").glob("*.json"))
    assert kept.stat().st_mode & 0o777 == 0o600
    with DispatcherClient(world.url, LoggedIn(file)) as client:
        assert (client.whoami().name, client.whoami().groups) == ("ada", ("production",))
        before = file.read()
        assert before is not None
        kept.write_text(kept.read_text().replace(str(before.expires), "1.0"))
        assert client.whoami().name == "ada"
        after = file.read()
        assert after is not None
        assert after.access_token != before.access_token
        assert after.refresh_token not in (None, before.refresh_token)


def test_the_commands_log_in_and_out(world: World, tmp_path: Path) -> None:
    """``hpcpanda login`` shows where to go and who one is then; the next commands are that user; ``logout`` ends it."""
    environment = {**os.environ, "HPCPANDA_STATE": str(tmp_path), "HPCPANDA_DISPATCHER": world.url}
    hpcpanda = [sys.executable, "-m", "hpcpanda.client.cli"]
    with subprocess.Popen(
        [*hpcpanda, "login"], env={**environment, "PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().removeprefix("open ").strip()
        Browser().walk(address, user="grace", until="no address: device")
        told = process.communicate(timeout=40)[0]
    assert "logged in as grace; groups: none; scopes: edges:read, self, tasks:read" in told

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        done = [*hpcpanda, *words]
        return subprocess.run(done, env=environment, capture_output=True, text=True, check=False)

    assert run("whoami", "-o", "quiet").stdout == "grace\n"
    assert run("logout").stdout == "logged out\n"
    assert "hpcpanda login" in run("whoami").stderr


def test_new_keys_are_learnt_and_old_ones_forgotten(world: World) -> None:
    """After the provider has changed its keys its tokens are good at once, and those of the old keys are not."""
    old = world.provider.keys[0]
    world.provider = world.provider.restarted_with(new_key("second"))
    new = world.provider.keys[0]
    with DispatcherClient(world.url, world.provider.sign(world.provider.claims("ada"), key=new)) as client:
        assert client.whoami().name == "ada"
    assert "signature" in world.refusal(world.provider.sign(world.provider.claims("ada", jti="1"), key=old))


def test_nothing_secret_is_logged(world: World) -> None:
    """After all this the dispatcher's log holds none of the tokens, codes and secrets that went through it."""
    browser = Browser()
    browser.http.get(login(world, browser, "ada"))
    assert world.refusal(world.provider.sign(world.provider.claims("ada", aud="other")))
    with world.client("ada") as ada:
        ada.submit(spec(10))
    log = (world.dispatcher.settings.state.parent / "state.log").read_text()
    assert browser.http.cookies["hpcpanda_session"] not in log
    assert "audit" in log
    assert "auth.refused" in log
    secrets = [
        WEB_SECRET,
        EDGE_SECRET,
        world.dispatcher.user_token,
        "eyJ",
        "hpcpanda-session-",
        "hpcpanda-user-",
    ]
    assert not [secret for secret in secrets if secret in log]
    assert "code=" not in log
    assert "state=" not in log
