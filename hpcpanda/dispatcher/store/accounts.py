"""Tasks in the database: accounts and specifications."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import fields

from sqlalchemy import RowMapping, bindparam, insert, select, union_all, update
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

_OPEN = (TaskState.READY, TaskState.RUNNING)

_CHANGING = (
    *("state", "ready", "leased", "done", "failed", "merged", "next_epoch"),
    *("core_seconds", "rate", "rate_at", "updated", "served", "message"),
)
_SAVE = (
    update(tasks)
    .where(tasks.c.task_id == bindparam("key"))
    .values({name: bindparam(name) for name in _CHANGING})
)


class Accounts:
    """Accounts and specifications of tasks."""

    def __init__(self, connection: AsyncConnection, *, holds_rows: bool) -> None:
        self._connection = connection
        self._holds_rows = holds_rows

    async def add(self, account: Account, spec: TaskSpec, idempotency_key: str | None) -> int:
        """Insert a task; gives its number. The account's own ``task_id`` is not used."""
        row = _row(account)
        del row["task_id"]
        result = await self._connection.execute(insert(tasks).values(row))
        key = result.inserted_primary_key
        assert key is not None, "the database numbers tasks"
        task_id = int(key[0])
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
        found: dict[int, Account] = {}
        for portion in chunks(sorted(filter(is_id, set(task_ids)))):
            query = select(tasks).where(tasks.c.task_id.in_(portion)).order_by(tasks.c.task_id)
            if self._holds_rows:
                query = query.with_for_update(key_share=True)
            for row in (await self._connection.execute(query)).mappings():
                found[row["task_id"]] = account_of(row)
        return found

    async def seen(self, task_ids: Iterable[int]) -> dict[int, Account]:
        """Like :meth:`some`, without holding them: to look at only."""
        found: dict[int, Account] = {}
        for portion in chunks(sorted(filter(is_id, set(task_ids)))):
            rows = await self._connection.execute(select(tasks).where(tasks.c.task_id.in_(portion)))
            found |= {row["task_id"]: account_of(row) for row in rows.mappings()}
        return found

    async def free_of(self, task_ids: Collection[int]) -> dict[int, Account]:
        """Like :meth:`some`, without the tasks that another transaction holds; never waits."""
        if not self._holds_rows:
            return await self.some(task_ids)
        found: dict[int, Account] = {}
        for portion in chunks(task_ids):
            query = select(tasks).where(tasks.c.task_id.in_(portion))
            query = query.with_for_update(key_share=True, skip_locked=True)
            for row in (await self._connection.execute(query)).mappings():
                found[row["task_id"]] = account_of(row)
        return found

    async def claim(self, candidate: Account, *, wait: bool) -> Account | None:
        """Hold a task that was found, as it is now; None when it has nothing ready any more.

        Args:
            candidate: the task as it was found.
            wait: for another transaction that holds it; else the answer is None then, too. Only for a transaction
                that holds no other task.
        """
        if not self._holds_rows:
            return candidate
        query = (
            select(tasks)
            .where(tasks.c.task_id == candidate.task_id, tasks.c.state.in_(_OPEN), tasks.c.ready > 0)
            .with_for_update(key_share=True, skip_locked=not wait)
        )
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else account_of(row)

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
        return [account_of(row) for row in (await self._connection.execute(query)).mappings()]

    async def save(self, accounts: Collection[Account]) -> None:
        """Write the counts and states of accounts."""
        if accounts:
            rows = [{"key": a.task_id, **{name: getattr(a, name) for name in _CHANGING}} for a in accounts]
            await self._connection.execute(_SAVE, rows)

    async def rewrite(self, account: Account) -> None:
        """Write all of an account, also what hardly ever changes: priority, total, what its jobs ask for."""
        row = _row(account)
        del row["task_id"]
        await self._connection.execute(update(tasks).where(tasks.c.task_id == account.task_id).values(row))

    async def specs(self, task_ids: Collection[int]) -> dict[int, TaskSpec]:
        """Specifications of tasks that exist."""
        found: dict[int, TaskSpec] = {}
        for portion in chunks(task_ids):
            query = select(task_specs.c.task_id, task_specs.c.spec).where(task_specs.c.task_id.in_(portion))
            for task_id, text in await self._connection.execute(query):
                found[task_id] = load_spec(text)
        return found


def _row(account: Account) -> dict[str, object]:
    row: dict[str, object] = {name: getattr(account, name) for name in _PLAIN_FIELDS}
    for name in _JOB_FIELDS:
        row[f"job_{name}"] = None if account.job is None else getattr(account.job, name)
    return row


def account_of(row: RowMapping) -> Account:
    """The account in a row of ``tasks``."""
    values = {name: row[name] for name in _PLAIN_FIELDS}
    values["state"] = TaskState(values["state"])
    is_of_jobs = row["job_cores"] is not None
    job = JobRequest(**{name: row[f"job_{name}"] for name in _JOB_FIELDS}) if is_of_jobs else None
    return Account(**values, job=job)
