"""Tokens of edges that end, HTTPS, and rates, over a real server."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import time
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.dispatcher import running_dispatcher

from hpcpanda.client.access import Bearer
from hpcpanda.client.async_sdk import AsyncDispatcherClient
from hpcpanda.client.rotation import keeping_token
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.dispatcher.run import create_token
from hpcpanda.dispatcher.settings import load_settings
from hpcpanda.domain.errors import InvalidValue, TooManyRequests, Unauthenticated, Unavailable


async def call_for_ever(client: AsyncDispatcherClient) -> None:
    while True:
        await client.whoami()
        await asyncio.sleep(0.2)


async def test_an_edge_keeps_its_token_alive(tmp_path: Path) -> None:
    """A running edge goes on when its first token is gone, and its token file has the new one for the next start."""
    with running_dispatcher(tmp_path / "state", token_days=0.5) as dispatcher:
        made = (dispatcher.settings, "edge", "e")
        first = await asyncio.to_thread(create_token, *made, days=8 / 86_400)
        file = tmp_path / "edge.token"
        file.write_text(first)
        shown = Bearer(first)
        async with (
            AsyncDispatcherClient(dispatcher.url, shown) as client,
            keeping_token(client, shown, file),
        ):
            for _ in range(300):
                await asyncio.sleep(0.1)
                if file.read_text().strip() != first:
                    break
            async with asyncio.timeout(60), AsyncDispatcherClient(dispatcher.url, first) as expiring:
                with pytest.raises(Unauthenticated):
                    await call_for_ever(expiring)
            assert (await client.whoami()).name == "e"
        assert file.stat().st_mode & 0o777 == 0o600
        second = file.read_text().strip()
        assert httpx2.get(f"{dispatcher.url}/v1/auth/whoami", headers={"Authorization": f"Bearer {first}"}).status_code == 401  # fmt: skip
        with DispatcherClient(dispatcher.url, second) as client_again:
            ends = client_again.whoami().expires
        assert ends is not None
        assert 0.4 * 86_400 < ends - time.time() < 0.6 * 86_400
        log = (tmp_path / "state.log").read_text()
    assert first not in log
    assert second not in log


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dispatcher")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return files


def test_https_by_configuration(tmp_path: Path) -> None:
    """A client that is given the certificate talks to the dispatcher; one that is not refuses to."""
    chain, key = certificate(tmp_path)
    with running_dispatcher(tmp_path / "state", tls_certificate=chain, tls_key=key) as dispatcher:
        assert dispatcher.url.startswith("https://")
        with DispatcherClient(dispatcher.url, dispatcher.user_token, ca_file=chain) as client:
            assert client.whoami().name == "local"
        with (
            DispatcherClient(dispatcher.url, dispatcher.user_token) as stranger,
            pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            stranger.whoami()
    with pytest.raises(InvalidValue, match="together"):
        load_settings(state=tmp_path, tls_key=key)


def call_often(client: DispatcherClient) -> None:
    for _ in range(100):
        client.whoami()


def test_a_flood_is_held_back_and_harms_nobody_else(tmp_path: Path) -> None:
    """Beyond their rate callers and addresses get 429 with the time to wait; callers known already are let in."""
    with (
        running_dispatcher(tmp_path / "state", caller_rate=1, address_rate=1) as dispatcher,
        dispatcher.other_user("flood") as flood,
        dispatcher.user() as good,
    ):
        assert good.whoami().name == "local"
        for _ in range(5):
            flood.whoami()
        with pytest.raises(TooManyRequests, match="more than 1 requests a second"):
            call_often(flood)
        bad = {"Authorization": "Bearer hpcpanda-user-guess"}
        with httpx2.Client(base_url=dispatcher.url) as stranger:
            answers = [stranger.get("/v1/auth/whoami", headers=bad) for _ in range(30)]
            assert [a.status_code for a in answers[:4]] == [401] * 4
            last = next(a for a in answers if a.status_code == 429)
            assert int(last.headers["retry-after"]) >= 1
            assert any(stranger.get("/v1/health").status_code == 429 for _ in range(10))
        assert good.whoami().name == "local"
        forwarded = {"X-Forwarded-For": "192.0.2.7"}
        with httpx2.Client(base_url=dispatcher.url, headers=forwarded) as stranger:
            assert any(stranger.get("/v1/health").status_code == 429 for _ in range(10))
