"""Rules of identity without a provider: the identity file, groups, rates, keys."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import OctKey, RSAKey

from hpcpanda.dispatcher.identity.buckets import MAX_KEYS, Buckets, network_of
from hpcpanda.dispatcher.identity.mapping import Grant, IdentityFile, load_identity
from hpcpanda.dispatcher.identity.provider import REFETCH_BURST, REFETCH_SECONDS, Provider
from hpcpanda.dispatcher.identity.scopes import Scope
from hpcpanda.domain.errors import Forbidden, InvalidValue, TooManyRequests, Unavailable

HEAD = 'issuer = "https://iam.example"\naudience = "https://d.example"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("issuer = ", "not TOML"),
        ('issuer = "https://iam.example"', "audience"),
        (
            'issuer = "http://iam.example"\naudience = "a"',
            "issuer: 'http://iam.example' must begin with https",
        ),
        (HEAD + 'king = "arthur"', "king"),
        (HEAD + '[[grant]]\ngroup = "/a"\nscopes = ["tasks:burn"]', "grant.0.scopes.0"),
        (HEAD + '[[grant]]\ngroup = "/a"\nscopes = ["edge"]', "never to a group"),
        (HEAD + '[[grant]]\ngroup = ""', "group"),
        (HEAD + '[[grant]]\ngroup = "/a"\nteam = "../x"', "team"),
        (HEAD + '[web]\nclient_id = "c"\naddress = "ftp://x"', "address"),
        (HEAD + '[device]\nclient_id = "https://d.example"', "ID tokens"),
        (HEAD + '[[edge]]\nclient_id = "c"\nname = "a"\n[[edge]]\nclient_id = "c"\nname = "b"', "twice"),
    ],
)
def test_a_wrong_identity_file_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """The message names the file, the field and what is wrong."""
    file = tmp_path / "identity.toml"
    file.write_text(text)
    with pytest.raises(InvalidValue) as caught:
        load_identity(file)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("group", "covers"),
    [("/exp", True), ("/exp/a", True), ("/exp/a/b", True), ("/experiment", False), ("/", False), ("", False)],
)
def test_a_group_covers_those_below_it_and_no_namesake(group: str, covers: bool) -> None:
    """``/exp/*`` is a subtree, not a prefix of letters."""
    assert Grant(group="/exp/*").covers(group) is covers
    assert Grant(group="/exp").covers(group) is (group == "/exp")


def test_rights_add_up_over_groups() -> None:
    """A member of two groups may do what either allows, for both teams; submits for no third."""
    said = IdentityFile(
        issuer="https://i.example",
        audience="a",
        grant=(
            Grant(group="/a", scopes=(Scope.TASKS_READ,), team="a"),
            Grant(group="b", scopes=(Scope.TASKS_WRITE,), team="b"),
            Grant(group="c", scopes=(Scope.ADMIN,)),
        ),
    )
    ada = said.principal({"sub": "ada", "exp": 1, "wlcg.groups": ["/a"], "groups": ["b", "B", "c/d"]})
    assert ada.scopes == {Scope.SELF, Scope.TASKS_READ, Scope.TASKS_WRITE}
    assert ada.groups == {"a", "b"}
    assert (ada.team_for("a"), ada.team_for(None)) == ("a", None)
    with pytest.raises(Forbidden, match="'c'; your groups: a, b"):
        ada.team_for("c")


@given(
    rate=st.floats(0.1, 100),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
)
def test_a_bucket_lets_through_no_more_than_it_says(rate: float, burst: int, gaps: list[float]) -> None:
    """Over any time: burst + rate x time at most; and who waits as long as told is let in."""
    buckets, now, passed = Buckets(rate=rate, burst=burst), 1e9, 0
    for gap in gaps:
        now += gap
        wait_s = buckets.take("x", now=now)
        passed += wait_s == 0
        assert passed <= burst + rate * (now - 1e9) + 1e-3
    wait_s = buckets.take("x", now=now)
    if wait_s:
        assert buckets.take("x", now=now + wait_s + 1e-5) == 0


def test_callers_do_not_share_a_bucket_and_memory_is_bounded() -> None:
    """One's flood is not another's; and the number of callers remembered has an end."""
    buckets = Buckets(rate=1, burst=2)
    for _ in range(2):
        buckets.require("a", now=0.0)
    with pytest.raises(TooManyRequests) as caught:
        buckets.require("a", now=0.0)
    assert caught.value.retry_after_s == 1.0
    buckets.require("b", now=0.0)
    for each in range(MAX_KEYS + 100):
        buckets.take(str(each), now=0.0)
    assert len(buckets._levels) == MAX_KEYS


def test_a_network_of_ipv6_is_one_caller() -> None:
    """Addresses that one subscriber has by the million count as one; a mapped IPv4 address as itself."""
    assert (
        network_of("2001:db8:1:2::1") == network_of("2001:db8:1:2:ffff::9") != network_of("2001:db8:1:3::1")
    )
    assert network_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert network_of("testclient") == "unknown"


class Said(httpx2.AsyncBaseTransport):
    """A provider that says what it is told to."""

    def __init__(self, keys: list[dict[str, object]]) -> None:
        self.keys = keys
        self.asked = 0
        self.down = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self.down:
            raise httpx2.ConnectError("down")
        if request.url.path == "/keys":
            self.asked += 1
            return httpx2.Response(200, json={"keys": self.keys})
        where = {f"{name}_endpoint": f"https://i.example/{name}" for name in ("authorization", "token")}
        said = {"issuer": "https://i.example", "jwks_uri": "https://i.example/keys", **where}
        return httpx2.Response(200, json=said)


async def test_unknown_keys_are_asked_for_at_a_bounded_rate() -> None:
    """A flood of made-up key names costs the provider a few requests, and nobody else a good key."""
    key = RSAKey.generate_key(2048, {"kid": "good", "use": "sig"})
    transport = Said([key.as_dict(private=False)])
    provider = Provider("https://i.example", httpx2.AsyncClient(transport=transport))
    for each in range(100):
        keys = await provider.keys_for(f"made-up-{each}", now=0.0)
    assert transport.asked == REFETCH_BURST
    assert [k.kid for k in keys.keys] == ["good"]
    await provider.keys_for("made-up", now=REFETCH_SECONDS + 1)
    assert transport.asked == REFETCH_BURST + 1
    transport.down = True
    assert (await provider.keys_for("good", now=40_000.0)).keys
    with pytest.raises(Unavailable):
        await provider.keys_for("good", now=100_000.0)
    await provider.close()


async def test_only_public_signing_keys_are_taken() -> None:
    """Secrets, keys for encryption and rubbish among the provider's keys are left out."""
    good = RSAKey.generate_key(2048, {"kid": "good"}).as_dict(private=False)
    secret = OctKey.generate_key(256, {"kid": "secret"}).as_dict(private=True)
    listed = [secret, {**good, "kid": "enc", "use": "enc"}, {"kty": "RSA", "kid": "bad", "n": "?"}, good]
    provider = Provider("https://i.example", httpx2.AsyncClient(transport=Said(listed)))
    assert [key.kid for key in (await provider.keys_for("good", now=0.0)).keys] == ["good"]
    await provider.close()
