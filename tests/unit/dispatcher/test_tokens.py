"""The dispatcher's own tokens: their end, their exchange, what is kept of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from hpcpanda.dispatcher.auth import KNOWN_SECONDS, Bearers, issue_token
from hpcpanda.dispatcher.identity.scopes import TokenKind
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.opening import open_database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.dispatcher.usecases.tokens import forget_ended, revoke_tokens, rotate_token
from hpcpanda.domain.errors import Conflict, Unauthenticated
from hpcpanda.domain.identity import NewToken

NOW = 1e9
DAY = 86_400.0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = open_database(DispatcherSettings(state=tmp_path))
    await database.migrate()
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


async def issue(store: Store, days: float | None = 30.0) -> str:
    expires = None if days is None else NOW + days * DAY
    return await issue_token(store.writing(), kind=TokenKind.EDGE, name="e", now=NOW, expires=expires)


async def rotate(store: Store, token: str, now: float = NOW) -> NewToken:
    caller = await Bearers(store).identify(token, now=now)
    return await rotate_token(store.writing(), caller=caller, lifetime_s=30 * DAY, overlap_s=3600, now=now)


async def good(store: Store, token: str, now: float) -> bool:
    try:
        return (await Bearers(store).identify(token, now=now)).name == "e"
    except Unauthenticated:
        return False


async def test_an_edge_exchanges_its_token(store: Store) -> None:
    """Both are good during the overlap, then only the new one, until its own end."""
    old = await issue(store)
    new = (await rotate(store, old)).token
    assert new != old
    assert [await good(store, t, NOW + 3599) for t in (old, new)] == [True, True]
    assert [await good(store, t, NOW + 3601) for t in (old, new)] == [False, True]
    assert not await good(store, new, NOW + 30 * DAY + 1)


async def test_a_lost_answer_is_asked_for_again(store: Store) -> None:
    """The same token exchanged twice takes the first new one back: of two that have it one is heard of."""
    old = await issue(store)
    lost = (await rotate(store, old)).token
    again = await rotate(store, old, NOW + 60)
    assert [await good(store, t, NOW + 61) for t in (old, lost, again.token)] == [True, False, True]
    assert again.old_expires == NOW + 3600


async def test_the_overlap_lengthens_no_life(store: Store) -> None:
    """A token that ends before the overlap does ends at its time."""
    old = await issue(store, days=0.01)
    assert (await rotate(store, old)).old_expires == NOW + 864
    assert not await good(store, old, NOW + 865)


async def test_a_token_without_an_end_is_left_alone(store: Store) -> None:
    """The embedded default's tokens are not exchanged."""
    with pytest.raises(Conflict, match="does not end"):
        await rotate(store, await issue(store, days=None))


async def test_a_known_token_ends_at_its_time(store: Store) -> None:
    """What is remembered of a token is forgotten when it ends, or a minute later when it was taken back."""
    token = await issue(store, days=30 / DAY)
    bearers = Bearers(store)
    await bearers.identify(token, now=NOW)
    assert bearers.known(token, now=NOW + 29) is not None
    assert bearers.known(token, now=NOW + 30) is None
    lasting = await issue(store)
    await bearers.identify(lasting, now=NOW)
    assert (await revoke_tokens(store.writing(), kind=TokenKind.EDGE, name="e")).tokens == 2
    assert bearers.known(lasting, now=NOW + KNOWN_SECONDS) is None
    assert not await good(store, lasting, NOW)


async def test_ended_tokens_leave_no_rows(store: Store, database: Database) -> None:
    """Rows do not grow with exchanges."""
    token = await issue(store)
    for day in range(5):
        token = (await rotate(store, token, NOW + day * DAY)).token
    await forget_ended(store.writing(), now=NOW + 5 * DAY)
    async with database.read() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM tokens"))).scalar_one() == 1
        kept = (await connection.execute(text("SELECT * FROM tokens"))).all()
    assert token not in str(kept)


async def test_the_audit_log_is_only_added_to(store: Store, database: Database) -> None:
    """The database itself refuses to change or delete an entry."""
    async with store.writing() as uow:
        await uow.audit.add(at=NOW, who="user:ada", did="login", target="", address="::1")
    for statement in ("UPDATE audit SET who = 'nobody'", "DELETE FROM audit"):
        with pytest.raises(DatabaseError, match="only added to"):
            async with database.write() as connection:
                await connection.execute(text(statement))
    async with store.reading() as uow:
        (entry,) = await uow.audit.page(who=None, before=None, limit=10)
    assert (entry.who, entry.did) == ("user:ada", "login")
