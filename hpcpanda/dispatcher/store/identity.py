"""Browser sessions, logins under way, who sees which task, and the audit log, in the database."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, insert, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.identity.principal import Principal, Sight
from hpcpanda.dispatcher.identity.scopes import Scope
from hpcpanda.dispatcher.store.identity_tables import audit, logins, sessions, task_teams
from hpcpanda.dispatcher.store.service_tables import archived_tasks
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.domain.identity import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A browser that is at the provider."""

    nonce: str
    verifier: str
    next: str


class Sessions:
    """Browsers that have logged in, or are about to."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def begin(self, state: str, login: Login, *, expires: float) -> None:
        """Note that a browser goes to the provider."""
        row = {"state": state, "nonce": login.nonce, "verifier": login.verifier, "next": login.next}
        await self._connection.execute(insert(logins).values({**row, "expires": expires}))

    async def take(self, state: str, *, now: float) -> Login | None:
        """The login under a state, which is thereby used up; None when there is none."""
        query = delete(logins).where(logins.c.state == state).returning(logins)
        row = (await self._connection.execute(query)).first()
        if row is None or row.expires <= now:
            return None
        return Login(nonce=row.nonce, verifier=row.verifier, next=row.next)

    async def add(self, digest: str, principal: Principal, *, expires: float) -> None:
        """Record a session."""
        row = {
            "digest": digest,
            "name": principal.name,
            "scopes": json.dumps(sorted(principal.scopes)),
            "teams": json.dumps(sorted(principal.groups)),
            "expires": expires,
        }
        await self._connection.execute(insert(sessions).values(row))

    async def find(self, digest: str, *, now: float) -> Principal | None:
        """Whose a session is, if it is known and has not ended."""
        query = select(sessions).where(sessions.c.digest == digest, sessions.c.expires > now)
        row = (await self._connection.execute(query)).first()
        if row is None:
            return None
        known = set(Scope)
        return Principal(
            name=row.name,
            scopes=frozenset(Scope(scope) for scope in json.loads(row.scopes) if scope in known),
            groups=frozenset(json.loads(row.teams)),
            expires=row.expires,
            digest=digest,
            by_cookie=True,
        )

    async def drop(self, digest: str) -> None:
        """End a session."""
        await self._connection.execute(delete(sessions).where(sessions.c.digest == digest))

    async def drop_named(self, name: str) -> int:
        """End all sessions of a user; gives how many there were."""
        return (await self._connection.execute(delete(sessions).where(sessions.c.name == name))).rowcount

    async def drop_ended(self, *, now: float) -> None:
        """Forget sessions and logins whose time is up."""
        for table in (sessions, logins):
            await self._connection.execute(delete(table).where(table.c.expires <= now))


class TaskTeams:
    """Whose members see which task, beside its owner."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, task_id: int, team: str) -> None:
        """Record the team of a new task."""
        await self._connection.execute(insert(task_teams).values({"task_id": task_id, "team": team}))

    async def seen(self, task_id: int, sight: Sight) -> bool:
        """Whether a task, also one put away, is in somebody's sight."""
        queries = (
            select(table.c.task_id).where(
                table.c.task_id == task_id, *in_sight(table.c.task_id, table.c.owner, sight)
            )
            for table in (tasks, archived_tasks)
        )
        return (await self._connection.execute(union_all(*queries))).first() is not None


def in_sight(
    task_id: ColumnElement[int], owner: ColumnElement[str], sight: Sight | None
) -> tuple[ColumnElement[bool], ...]:
    """Conditions that leave the tasks that somebody sees; none for one who sees everything."""
    if sight is None:
        return ()
    teams = select(task_teams.c.task_id).where(task_teams.c.team.in_(sorted(sight.groups)))
    return (or_(owner == sight.name, task_id.in_(teams)),)


class AuditLog:
    """Who did what; only ever added to."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def add(self, *, at: float, who: str, did: str, target: str, address: str) -> None:
        """Write down one thing done."""
        row = {"at": at, "who": who[:160], "did": did[:200], "target": target, "address": address[:64]}
        await self._connection.execute(insert(audit).values(row))

    async def page(self, *, who: str | None, before: int | None, limit: int) -> list[AuditEntry]:
        """Entries, newest first."""
        query = select(audit).order_by(audit.c.entry.desc()).limit(limit)
        if who is not None:
            query = query.where(audit.c.who == who)
        if before is not None:
            query = query.where(audit.c.entry < before)
        rows = await self._connection.execute(query)
        return [AuditEntry(**row) for row in rows.mappings()]
