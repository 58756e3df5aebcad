"""Tasks in the database: accounts and specifications."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import fields

from sqlalchemy import RowMapping, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.store.chunks import chunks
from hpcpanda.dispatcher.store.codec import dump_spec, is_id, load_spec
from hpcpanda.dispatcher.store.tables import task_specs, tasks
from hpcpanda.dispatcher.store.wanted import wanted
from hpcpanda.domain.errors import NotFound
from hpcpanda.domain.exchange import Capacity
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import JobRequest, TaskSpec

_JOB_FIELDS = tuple(f.name for f in fields(JobRequest))
_PLAIN_FIELDS = tuple(f.name for f in fields(Account) if f.name != "job")

_OPEN = (TaskState.READY, TaskState.RUNNING)

_CHANGING = (
    *("state", "ready", "leased", "done", "failed", "merged", "next_epoch"),
    *("core_seconds", "rate", "rate_at", "updated", "message"),
)
_SAVE = (
    update(tasks)
    .where(tasks.c.task_id == bindparam("key"))
    .values({name: bindparam(name) for name in _CHANGING})
)


class Accounts:
    """Accounts and specifications of tasks."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

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
        """Number of the task submitted under this key, if any."""
        query = select(task_specs.c.task_id).where(
            task_specs.c.owner == owner, task_specs.c.idempotency_key == idempotency_key
        )
        return (await self._connection.execute(query)).scalar_one_or_none()

    async def get(self, task_id: int) -> Account:
        """One account, locked where the database locks rows.

        Raises:
            NotFound: there is no such task.
        """
        found = await self.some((task_id,))
        if task_id not in found:
            raise NotFound(f"there is no task {task_id}")
        return found[task_id]

    async def some(self, task_ids: Iterable[int]) -> dict[int, Account]:
        """The accounts that exist of those named, by number, locked where the database locks rows."""
        found: dict[int, Account] = {}
        for portion in chunks(sorted(filter(is_id, set(task_ids)))):
            query = select(tasks).where(tasks.c.task_id.in_(portion)).with_for_update()
            for row in (await self._connection.execute(query)).mappings():
                found[row["task_id"]] = _account(row)
        return found

    async def ready_for(self, capacity: Capacity, limit: int) -> list[Account]:
        """Tasks that have ready events, or jobs for which there is room: highest priority first, then in order
        of submission. Chosen by the database, however many others there are."""
        query = (
            select(tasks)
            .where(tasks.c.state.in_(_OPEN), tasks.c.ready > 0, *wanted(capacity))
            .order_by(tasks.c.priority.desc(), tasks.c.task_id)
            .limit(limit)
            .with_for_update()
        )
        return [_account(row) for row in (await self._connection.execute(query)).mappings()]

    async def ahead_of(self, account: Account) -> tuple[Account | None, int]:
        """The first task with ready events that is served before this one, and how many there are."""
        ahead = (
            tasks.c.state.in_(_OPEN),
            tasks.c.ready > 0,
            (tasks.c.priority > account.priority)
            | ((tasks.c.priority == account.priority) & (tasks.c.task_id < account.task_id)),
        )
        count = (await self._connection.execute(select(func.count()).where(*ahead))).scalar_one()
        query = select(tasks).where(*ahead).order_by(tasks.c.priority.desc(), tasks.c.task_id).limit(1)
        row = (await self._connection.execute(query)).mappings().first()
        return (None if row is None else _account(row)), count

    async def page(
        self, *, state: TaskState | None, name: str | None, owner: str | None, limit: int, after: int | None
    ) -> list[Account]:
        """Accounts, newest first, of tasks older than ``after``."""
        query = select(tasks).order_by(tasks.c.task_id.desc()).limit(limit)
        if state is not None:
            query = query.where(tasks.c.state == state)
        if name is not None:
            query = query.where(tasks.c.name == name)
        if owner is not None:
            query = query.where(tasks.c.owner == owner)
        if after is not None:
            query = query.where(tasks.c.task_id < after)
        return [_account(row) for row in (await self._connection.execute(query)).mappings()]

    async def save(self, accounts: Collection[Account]) -> None:
        """Write the counts and states of accounts."""
        if accounts:
            rows = [{"key": a.task_id, **{name: getattr(a, name) for name in _CHANGING}} for a in accounts]
            await self._connection.execute(_SAVE, rows)

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


def _account(row: RowMapping) -> Account:
    values = {name: row[name] for name in _PLAIN_FIELDS}
    values["state"] = TaskState(values["state"])
    is_of_jobs = row["job_cores"] is not None
    job = JobRequest(**{name: row[f"job_{name}"] for name in _JOB_FIELDS}) if is_of_jobs else None
    return Account(**values, job=job)
