"""Look a dispatcher's database over, without changing anything in it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, text

from hpcpanda.dispatcher.account import Account
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.accounts import account_of
from hpcpanda.dispatcher.store.database import Database, newest_version, schema_version
from hpcpanda.dispatcher.store.opening import open_database
from hpcpanda.dispatcher.store.pulse import AWAY_SECONDS
from hpcpanda.dispatcher.store.tables import tasks
from hpcpanda.dispatcher.store.unit import Store, UnitOfWork
from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.ledger import EventLease

PAGE = 100
"""Tasks looked over in one transaction."""
MAX_SKEW_SECONDS = 2.0
"""A clock that is further off than this is told."""
MAX_TOLD = 20
"""Most tasks that are told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing looked at."""

    what: str
    fine: bool
    says: str
    """What was found; when it is not fine, also what to do."""


async def examine(settings: DispatcherSettings) -> tuple[Finding, ...]:
    """Everything there is to find out; what depends on something that is not fine is left out."""
    found = [Finding(what="settings", fine=True, says=_settings(settings))]
    if settings.database is None and not settings.database_file.exists():
        says = f"there is no {settings.database_file}; 'hpcpanda dispatcher run' makes it"
        return (*found, Finding(what="database", fine=False, says=says))
    database = open_database(settings)
    try:
        await _examine(database, found)
    except HpcPandaError as problem:
        found.append(Finding(what="database", fine=False, says=str(problem)))
    finally:
        await database.close()
    return tuple(found)


async def check_accounts(database: Database) -> list[str]:
    """What is wrong in the accounts of tasks: each event has to be in one account and every count has to be right."""
    problems: list[str] = []
    store, last = Store(database), 0
    while True:
        async with database.read() as connection:
            query = select(tasks).where(tasks.c.task_id > last).order_by(tasks.c.task_id).limit(PAGE)
            page = [account_of(row) for row in await connection.execute(query)]
        for account in page:
            async with store.reading() as uow:
                problems += await _problems_of(uow, account.task_id)
        if not page:
            return problems
        last = page[-1].task_id


def account_problems(
    account: Account, ready: IntervalSet, leases: Iterable[EventLease], failed: IntervalSet
) -> list[str]:
    """What is wrong in one account. Of a final task whose leases were forgotten, only the counts can be looked at."""
    leases = list(leases)
    outstanding, committed, twice = EMPTY, EMPTY, EMPTY
    for lease in leases:
        twice |= (outstanding | committed | ready) & (lease.outstanding | lease.committed - failed)
        outstanding |= lease.outstanding
        committed |= lease.committed
    counts = {
        "ready": (account.ready + account.held, len(ready)),
        "leased": (account.leased, len(outstanding)),
        "failed": (account.failed, len(failed)),
    }
    if not account.state.final:
        counts["done"] = (account.done, len(committed - failed))
        counts["all"] = (account.total, len(ready | outstanding | committed | failed))
    wrong = [
        f"it counts {said} events {name}, and has {has}"
        for name, (said, has) in counts.items()
        if said != has
    ]
    if twice:
        wrong.append(f"events {twice} are in two accounts")
    return [f"task {account.task_id}: {problem}" for problem in wrong]


async def _examine(database: Database, found: list[Finding]) -> None:
    began = time.time()
    there = await database.time()
    skew = there - (began + time.time()) / 2
    async with database.read() as connection:
        version = await connection.run_sync(schema_version)
        is_postgres = connection.dialect.name == "postgresql"
        query = "SHOW server_version" if is_postgres else "SELECT sqlite_version()"
        server = (await connection.execute(text(query))).scalar_one()
    found.append(Finding(what="database", fine=True, says=f"{database.name} answers, version {server}"))
    newest = newest_version()
    says = f"schema version {', '.join(version) or 'none: it is empty'}"
    if version != (newest,):
        says += f"; this hpcpanda needs {newest}: start a dispatcher of this version over it, or use another version"
    found.append(Finding(what="schema", fine=version == (newest,), says=says))
    fine = abs(skew) <= MAX_SKEW_SECONDS
    advice = "" if fine else "; dispatchers go by the database's, set this machine's clock right for its logs"
    found.append(
        Finding(
            what="clock", fine=fine, says=f"the database's clock is {skew:+.1f} s off this machine's{advice}"
        )
    )
    found.append(await _durability(database, is_postgres=is_postgres))
    if version == (newest,):
        found.append(await _presence(database, there))
        found.append(_accounts(await check_accounts(database)))


async def _durability(database: Database, *, is_postgres: bool) -> Finding:
    async with database.read() as connection:
        if is_postgres:
            wrong = []
            for name in ("fsync", "full_page_writes", "synchronous_commit"):
                value = (await connection.execute(text(f"SHOW {name}"))).scalar_one()
                if value == "off":
                    wrong.append(f"{name} is off")
            says = "a finished write is on disk"
            if wrong:
                says = f"{', '.join(wrong)}: a power cut loses what was acknowledged; switch it on"
            return Finding(what="durability", fine=not wrong, says=says)
        said = [str(line) for line in (await connection.execute(text("PRAGMA quick_check(5)"))).scalars()]
    fine = said == ["ok"]
    says = "the file is whole" if fine else f"the file is damaged ({'; '.join(said)}); restore a backup"
    return Finding(what="durability", fine=fine, says=says)


async def _presence(database: Database, now: float) -> Finding:
    async with Store(database).reading() as uow:
        last = await uow.pulses.last()
    if last is None or now - last > AWAY_SECONDS:
        return Finding(what="dispatchers", fine=True, says="none is running over this database")
    return Finding(
        what="dispatchers", fine=True, says=f"at least one was there {max(0.0, now - last):.0f} s ago"
    )


def _accounts(problems: list[str]) -> Finding:
    if not problems:
        return Finding(what="accounts", fine=True, says="every event of every task is in one account")
    told = "; ".join(problems[:MAX_TOLD])
    more = f"; and {len(problems) - MAX_TOLD} more" if len(problems) > MAX_TOLD else ""
    return Finding(what="accounts", fine=False, says=f"{told}{more}: please report this as a defect")


async def _problems_of(uow: UnitOfWork, task_id: int) -> list[str]:
    found = await uow.accounts.some((task_id,))
    if task_id not in found:
        return []
    ready = await uow.ready.all_of(task_id)
    leases = await uow.leases.all_of(task_id)
    failed = await uow.failures.numbers(task_id)
    return account_problems(found[task_id], ready, leases, failed)


def _settings(settings: DispatcherSettings) -> str:
    shown = settings.model_dump(exclude={"database"}, exclude_defaults=True)
    words = [f"{name}={_plain(value)}" for name, value in sorted(shown.items())]
    return ", ".join(words) if words else "all at their defaults"


def _plain(value: object) -> str:
    return str(value) if isinstance(value, int | float | str | Path) else type(value).__name__
