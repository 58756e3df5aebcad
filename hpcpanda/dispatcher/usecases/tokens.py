"""Change and take back tokens; read the audit log."""

from __future__ import annotations

from hpcpanda.dispatcher.auth import digest_of, make_token
from hpcpanda.dispatcher.identity.principal import Principal
from hpcpanda.dispatcher.identity.scopes import TokenKind
from hpcpanda.dispatcher.store.unit import UnitOfWork
from hpcpanda.domain.errors import Conflict, Forbidden, Unauthenticated
from hpcpanda.domain.identity import AuditPage, NewToken, Revoked


async def rotate_token(
    uow: UnitOfWork, *, caller: Principal, lifetime_s: float, overlap_s: float, now: float
) -> NewToken:
    """Give a new token in place of the caller's, which ends after the overlap.

    Asked again with the same token, after a lost answer, the token given first is taken back: two that both go on
    with it are thief and owner, and one of them is heard of.

    Raises:
        Forbidden: the token is the identity provider's, or a browser's.
        Conflict: it never ends, so that there is nothing to do.
        Unauthenticated: it has just ended, or was taken back.
    """
    if caller.digest is None or caller.by_cookie:
        raise Forbidden(
            "only the dispatcher's own tokens are changed here; log in again where this one is from"
        )
    async with uow:
        known = await uow.tokens.find(caller.digest, now=now)
        if known is None:
            raise Unauthenticated("the token has ended; ask the operator of the dispatcher for another")
        if known.expires is None:
            raise Conflict(
                "this token does not end, so it is not changed; ask the operator for one that does"
            )
        token = make_token(known.kind)
        await uow.tokens.drop_children(known.digest)
        await uow.tokens.end(known.digest, at=now + overlap_s)
        await uow.tokens.add(
            digest_of(token),
            scope=known.kind,
            name=known.name,
            now=now,
            expires=now + lifetime_s,
            parent=known.digest,
        )
        uow.target = f"token of {caller.key}"
    old = min(known.expires, now + overlap_s)
    return NewToken(token=token, expires=now + lifetime_s, old_expires=old)


async def end_session(uow: UnitOfWork, *, caller: Principal) -> None:
    """Log a browser out.

    Raises:
        Forbidden: the caller is no browser.
    """
    if not caller.by_cookie or caller.digest is None:
        raise Forbidden(
            "only a browser logs out here; a token ends at its time, or is taken back by the operator"
        )
    async with uow:
        await uow.sessions.drop(caller.digest)
        uow.target = f"session of {caller.key}"


async def revoke_tokens(uow: UnitOfWork, *, kind: TokenKind, name: str) -> Revoked:
    """Take back all tokens of a user or an edge, and a user's sessions."""
    async with uow:
        tokens = await uow.tokens.drop_named(kind, name)
        sessions = 0 if kind is TokenKind.EDGE else await uow.sessions.drop_named(name)
        uow.target = f"{kind} {name}"
    return Revoked(tokens=tokens, sessions=sessions)


async def read_audit(uow: UnitOfWork, *, who: str | None, before: int | None, limit: int) -> AuditPage:
    """Who did what, newest first."""
    async with uow:
        found = await uow.audit.page(who=who, before=before, limit=limit + 1)
    page = tuple(found[:limit])
    return AuditPage(entries=page, next_before=page[-1].entry if len(found) > limit else None)


async def forget_ended(uow: UnitOfWork, *, now: float) -> None:
    """Forget tokens, sessions and logins that have ended."""
    async with uow:
        await uow.tokens.drop_ended(now=now)
        await uow.sessions.drop_ended(now=now)
