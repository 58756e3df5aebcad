"""Tasks in the database: accounts and specifications."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from functools import lru_cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Row, Select, bindparam, func, insert, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.identity.principal import Sight
from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import dump_spec, is_id, load_spec
from hpcpanda.dispatcher.store.identity import in_sight
from hpcpanda.dispatcher.store.service_tables import archived_tasks
from hpcpanda.dispatcher.store.tables import task_specs, tasks
from hpcpanda.domain.errors import NotFound
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import TaskSpec

_JOB_FIELDS = tuple(f.name for f in fields(JobRequest))
_PLAIN_FIELDS = tuple(f.name for f in fields(Account) if f.name != "job")
_COLUMNS = [column.name for column in tasks.c]
_PLAIN_VALUES = itemgetter(*map(_COLUMNS.index, _PLAIN_FIELDS))
_JOB_VALUES = itemgetter(*(_COLUMNS.index(f"job_{name}") for name in _JOB_FIELDS))

_OPEN = (TaskState.READY, TaskState.SCOUTING, TaskState.RUNNING)

_CHANGING = (
    *("state", "ready", "leased", "done", "failed", "merged", "next_epoch"),
    *("core_seconds", "rate", "rate_at", "updated", "served", "message", "held", "before"),
)
_SAVE = (
    update(tasks)
    .where(tasks.c.task_id == bindparam("key"))
    .values({name: bindparam(name) for name in _CHANGING})
)
_NAMED = tasks.c.task_id.in_(bindparam("named", expanding=True))
_SEEN = select(tasks).where(_NAMED)
_HELD = _SEEN.order_by(tasks.c.task_id).with_for_update(key_share=True)
_FREE = _SEEN.with_for_update(key_share=True, skip_locked=True)
_LEASABLE = (
    _SEEN.add_columns(task_specs.c.spec)
    .join(task_specs, task_specs.c.task_id == tasks.c.task_id)
    .where(tasks.c.state.in_(_OPEN), tasks.c.ready > 0)
)
_CLAIM = _LEASABLE.with_for_update(of=tasks, key_share=True, skip_locked=True)
_CLAIM_WAITING = _LEASABLE.with_for_update(of=tasks, key_share=True)
_SPECS = select(task_specs.c.task_id, task_specs.c.spec).where(
    task_specs.c.task_id.in_(bindparam("named", expanding=True))
)


class Accounts:
    """Accounts and specifications of tasks."""

    def __init__(self, connection: AsyncConnection, *, holds_rows: bool, written: set[int]) -> None:
        self._connection = connection
        self._holds_rows = holds_rows
        self._written = written
        self._claimed: dict[int, TaskSpec] = {}
        """Specifications of the tasks held for leases, so far."""

    async def add(self, account: Account, spec: TaskSpec, idempotency_key: str | None) -> int:
        """Insert a task; gives its number. The account's own ``task_id`` is not used."""
        row = _row(account)
        del row["task_id"]
        result = await self._connection.execute(insert(tasks).values(row))
        key = result.inserted_primary_key
        assert key is not None, "the database numbers tasks"
        task_id = int(key[0])
        self._written.add(task_id)
        await self._connection.execute(
            insert(task_specs).values(
                task_id=task_id,
                owner=account.owner,
                idempotency_key=idempotency_key,
                spec=dump_spec(spec),
            )
        )
        return task_id

    async def submitted_before(self, owner: str, idempotency_key: str) -> int | None:
        """Number of the task submitted under this key, if any; it may have been put away since."""
        queries = (
            select(table.c.task_id).where(table.c.owner == owner, table.c.idempotency_key == idempotency_key)
            for table in (task_specs, archived_tasks)
        )
        return (await self._connection.execute(union_all(*queries))).scalar_one_or_none()

    async def get(self, task_id: int) -> Account:
        """One account; in a transaction that writes, nobody else changes the task until it ends.

        Raises:
            NotFound: there is no such task.
        """
        found = await self.some((task_id,))
        if task_id not in found:
            raise NotFound(f"there is no task {task_id}")
        return found[task_id]

    async def some(self, task_ids: Iterable[int]) -> dict[int, Account]:
        """The accounts that exist of those named, by number; in a transaction that writes, nobody else changes the
        tasks until it ends."""
        return await self._find(_HELD if self._holds_rows else _SEEN, sorted(filter(is_id, set(task_ids))))

    async def seen(self, task_ids: Iterable[int]) -> dict[int, Account]:
        """Like :meth:`some`, without holding them: to look at only."""
        return await self._find(_SEEN, sorted(filter(is_id, set(task_ids))))

    async def free_of(self, task_ids: Collection[int]) -> dict[int, Account]:
        """Like :meth:`some`, without the tasks that another transaction holds; never waits."""
        return await self._find(_FREE if self._holds_rows else _SEEN, task_ids)

    async def claim(self, candidates: Sequence[Account], *, wait: bool = False) -> list[Account]:
        """Hold tasks that were found; gives those that still have something ready, in their order, as they are now.

        Args:
            candidates: the tasks as they were found.
            wait: for other transactions that hold them; else what others hold is left out. Only for one candidate, and
                a transaction that holds no other task.
        """
        assert not wait or len(candidates) == 1, "nobody waits for a task who may hold another"
        if not self._holds_rows or not candidates:
            return list(candidates)
        named = [candidate.task_id for candidate in candidates]
        held: dict[int, Account] = {}
        for row in await self._connection.execute(_CLAIM_WAITING if wait else _CLAIM, {"named": named}):
            account = account_of(row)
            held[account.task_id] = account
            self._claimed[account.task_id] = load_spec(row.spec)
        return [held[task_id] for task_id in named if task_id in held]

    async def page(
        self,
        *,
        state: TaskState | None,
        name: str | None,
        owner: str | None,
        sight: Sight | None,
        limit: int,
        after: int | None,
    ) -> list[Account]:
        """Accounts, newest first, of tasks older than ``after``."""
        query = select(tasks).order_by(tasks.c.task_id.desc()).limit(limit)
        query = query.where(*in_sight(tasks.c.task_id, tasks.c.owner, sight))
        if state is not None:
            query = query.where(tasks.c.state == state)
        if name is not None:
            query = query.where(tasks.c.name == name)
        if owner is not None:
            query = query.where(tasks.c.owner == owner)
        if after is not None:
            query = query.where(tasks.c.task_id < after)
        return [account_of(row) for row in await self._connection.execute(query)]

    async def save(self, accounts: Collection[Account]) -> None:
        """Write the counts and states of accounts."""
        if accounts:
            self._written.update(a.task_id for a in accounts)
            rows = [{"key": a.task_id, **{name: getattr(a, name) for name in _CHANGING}} for a in accounts]
            await self._connection.execute(_SAVE, rows)

    async def rewrite(self, account: Account) -> None:
        """Write all of an account, also what hardly ever changes: priority, total, what its jobs ask for."""
        row = _row(account)
        del row["task_id"]
        self._written.add(account.task_id)
        await self._connection.execute(update(tasks).where(tasks.c.task_id == account.task_id).values(row))

    async def spec_sizes(self, task_ids: Collection[int]) -> dict[int, int]:
        """Characters that the specifications of tasks have."""
        found: dict[int, int] = {}
        for portion in chunks(task_ids):
            query = select(task_specs.c.task_id, func.length(task_specs.c.spec))
            rows = await self._connection.execute(query.where(task_specs.c.task_id.in_(portion)))
            found |= {row[0]: row[1] for row in rows}
        return found

    async def specs(self, task_ids: Collection[int]) -> dict[int, TaskSpec]:
        """Specifications of tasks that exist."""
        found = {task_id: self._claimed[task_id] for task_id in task_ids if task_id in self._claimed}
        for portion in chunks([task_id for task_id in task_ids if task_id not in found]):
            for task_id, text in await self._connection.execute(_SPECS, {"named": portion}):
                found[task_id] = load_spec(text)
        return found

    async def _find(self, query: Select[Any], task_ids: Collection[int]) -> dict[int, Account]:
        found: dict[int, Account] = {}
        for portion in chunks(task_ids):
            for row in await self._connection.execute(query, {"named": portion}):
                account = account_of(row)
                found[account.task_id] = account
        return found


def _row(account: Account) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(account, name) for name in _PLAIN_FIELDS}
    for name in _JOB_FIELDS:
        row[f"job_{name}"] = None if account.job is None else getattr(account.job, name)
    return row


def account_of(row: Row[Any]) -> Account:
    """The account in a whole row of ``tasks``, its columns as they are declared."""
    values = dict(zip(_PLAIN_FIELDS, _PLAIN_VALUES(row), strict=True))
    values["state"] = TaskState(values["state"])
    values["before"] = TaskState(values["before"]) if values["before"] is not None else None
    return Account(**values, job=_job_of(_JOB_VALUES(row)))


@lru_cache(maxsize=1024)
def _job_of(values: tuple[Any, ...]) -> JobRequest | None:
    asked = dict(zip(_JOB_FIELDS, values, strict=True))
    return JobRequest(**asked) if asked["cores"] is not None else None
