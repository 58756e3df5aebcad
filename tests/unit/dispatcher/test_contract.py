"""Rules that hold for the whole service: scopes, statuses, schema, clock, bell."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from support.schema import differences

from hpcpanda.client.calls import Call
from hpcpanda.dispatcher.app import build_app
from hpcpanda.dispatcher.bell import Bell
from hpcpanda.dispatcher.clock import SteadyClock
from hpcpanda.dispatcher.identity.scopes import PUBLIC, Scope
from hpcpanda.dispatcher.problems import STATUS, problem_response
from hpcpanda.dispatcher.routes import (
    admin,
    auth,
    changes,
    control,
    datasets,
    edges,
    health,
    metrics,
    reports,
    tasks,
)
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.sqlite import SqliteDatabase
from hpcpanda.domain.errors import HpcPandaError, InvalidValue

ROUTES = [
    route
    for module in (admin, auth, changes, control, datasets, edges, health, metrics, reports, tasks)
    for route in module.router.routes
    if isinstance(route, APIRoute)
]


def all_errors(root: type[HpcPandaError] = HpcPandaError) -> list[type[HpcPandaError]]:
    children = [c for c in root.__subclasses__() if c.__module__ == root.__module__]
    return [root, *(e for child in children for e in all_errors(child))]


def scopes(dependant: Dependant) -> set[str]:
    own = set(dependant.own_oauth_scopes or ())
    return own.union(*(scopes(child) for child in dependant.dependencies))


@pytest.mark.parametrize("route", ROUTES, ids=lambda r: f"{min(r.methods)} {r.path}")
def test_every_route_declares_one_scope(route: APIRoute) -> None:
    """No route is open or closed by accident."""
    assert len(scopes(route.dependant)) == 1
    assert scopes(route.dependant) <= {*Scope, PUBLIC} - {Scope.TASKS_ALL}


def test_only_health_and_logging_in_are_public() -> None:
    """Everything but the health check, and what one does to get a token, needs a token."""
    assert {r.path for r in ROUTES if scopes(r.dependant) == {"public"}} == {
        "/v1/health",
        *("/v1/auth/provider", "/v1/auth/login", "/v1/auth/callback"),
    }


def test_all_routes_are_walked(tmp_path: Path) -> None:
    """The routes looked at here are the routes that are served."""
    served = build_app(DispatcherSettings(state=tmp_path)).openapi()["paths"]
    assert set(served) == {route.path for route in ROUTES if route.include_in_schema}


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_comes_back_as_itself(kind: type[HpcPandaError]) -> None:
    """An error of the domain crosses the wire and arrives as the same class with the same words."""
    error = InvalidValue("field", "is wrong") if kind is InvalidValue else kind("what is wrong")
    answer = problem_response(error.code, str(error))
    assert answer.status_code == STATUS[kind.code]
    with pytest.raises(kind) as caught:
        Call(method="GET", path="/", answer=int).read(answer.status_code, bytes(answer.body))
    assert type(caught.value) is kind
    assert str(caught.value) == str(error)


def test_every_code_is_one_error() -> None:
    """Codes are unique, and the table names no code that does not exist."""
    codes = [kind.code for kind in all_errors()]
    assert sorted(codes) == sorted(STATUS)


async def test_migrations_make_the_schema_that_the_code_expects(tmp_path: Path) -> None:
    """A database brought up by migrations has exactly the tables in the code, and a second run changes nothing."""
    database = SqliteDatabase(tmp_path / "db.sqlite")
    await database.migrate()
    await database.migrate()

    async with database.write() as connection:
        found = await connection.run_sync(differences)
    await database.close()
    assert found == []


def test_clock_ignores_steps_of_the_system_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting the system clock back does not move the dispatcher's."""
    clock = SteadyClock()
    before = clock()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= clock() - before < 60


async def test_bell_is_not_missed_between_ticket_and_wait() -> None:
    """A ring after the ticket was taken wakes a waiter that comes later."""
    bell = Bell()
    ticket = bell.ticket()
    bell.ring()
    assert await bell.wait(ticket, 60)


async def test_closed_bell_releases_everybody() -> None:
    """Closing wakes those who wait and holds nobody back afterwards."""
    bell = Bell()
    waiting = asyncio.create_task(bell.wait(bell.ticket(), 60))
    await asyncio.sleep(0)
    bell.close()
    assert await waiting is False
    assert await bell.wait(bell.ticket(), 60) is False
