"""Whether a signed token is one of the provider's, for us, and still good.

JSON Web Token best practice (RFC 8725): algorithms are ours to choose, not the token's; issuer, audience and time are
always looked at. Access tokens after RFC 9068 and the WLCG profile, ID tokens after OpenID Connect Core 1.0 section
3.1.3.7.
"""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError

from hpcpanda.dispatcher.identity.provider import Provider
from hpcpanda.domain.errors import Unauthenticated

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""Signatures with a public key only: a secret shared with the provider would let us make its tokens."""
LEEWAY_SECONDS = 60.0
"""By so much the provider's clock may differ from ours."""
MAX_TOKEN = 16_384
"""Longest token looked at, characters."""
ACCESS_TYPES = (None, "jwt", "at+jwt", "application/at+jwt")
ID_TYPES = (None, "jwt")


async def verify_access(
    provider: Provider, token: str, *, issuer: str, audience: str, now: float
) -> Mapping[str, Any]:
    """The claims of an access token for us.

    Raises:
        Unauthenticated: it is none; the message says why.
    """
    claims = await _signed(provider, token, ACCESS_TYPES, now)
    _require_claims(claims, issuer=issuer, audience=audience, now=now)
    return claims


async def verify_id(
    provider: Provider, token: str, *, issuer: str, client_id: str, nonce: str, now: float
) -> Mapping[str, Any]:
    """The claims of an ID token that answers our own request.

    Raises:
        Unauthenticated: it is none; the message says why.
    """
    claims = await _signed(provider, token, ID_TYPES, now)
    _require_claims(claims, issuer=issuer, audience=client_id, now=now)
    if claims.get("azp", client_id) != client_id:
        raise Unauthenticated("the ID token was made for another client")
    if not hmac.compare_digest(str(claims.get("nonce")).encode(), nonce.encode()):
        raise Unauthenticated("the ID token does not belong to this login")
    return claims


async def _signed(
    provider: Provider, token: str, types: tuple[str | None, ...], now: float
) -> Mapping[str, Any]:
    header = _header(token)
    if header.get("alg") not in ALGORITHMS:
        raise Unauthenticated(f"tokens signed with {str(header.get('alg'))[:20]!r} are not accepted")
    kind = header.get("typ")
    if (kind.lower() if isinstance(kind, str) else kind) not in types:
        raise Unauthenticated(f"a token of type {str(kind)[:40]!r} is not accepted here")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise Unauthenticated("the token's key is not named by a text")
    keys = await provider.keys_for(kid, now=now)
    try:
        return jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims
    except (JoseError, ValueError, TypeError, RecursionError) as error:
        raise Unauthenticated("the token's signature is not the identity provider's; log in again") from error


def _header(token: str) -> Mapping[str, Any]:
    """What the token says of itself, to be believed in nothing but which key to try."""
    if len(token) > MAX_TOKEN:
        raise Unauthenticated("the token is too long")
    part = token.partition(".")[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise Unauthenticated("the token is not one of this dispatcher's, nor of its identity provider")
    return header


def _require_claims(claims: Mapping[str, Any], *, issuer: str, audience: str, now: float) -> None:
    if claims.get("iss") != issuer:
        raise Unauthenticated("the token is of another issuer than this dispatcher's identity provider")
    meant = claims.get("aud")
    if audience not in (meant if isinstance(meant, list) else [meant]):
        raise Unauthenticated(f"the token is not for this dispatcher: its audience is not {audience!r}")
    if _time(claims, "exp") + LEEWAY_SECONDS <= now:
        raise Unauthenticated("the token has expired; log in again")
    for name in ("nbf", "iat"):
        if name in claims and _time(claims, name) - LEEWAY_SECONDS > now:
            raise Unauthenticated("the token is not valid yet; is a clock wrong?")


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:
        raise Unauthenticated(f"the token does not say its {name!r}")
    return float(value)
