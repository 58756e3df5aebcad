"""PostgreSQL does what SQLite does: the suites that are run over the one are run over the other."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from integration.dispatcher import test_api, test_bad_input, test_hostile_edge, test_jobs, test_openapi
from support.dispatcher import RunningDispatcher, running_dispatcher
from support.ledger_machine import LedgerMachine
from support.postgres import TEMPLATE, PostgresServer, postgres_server, postgres_url  # noqa: F401 - fixtures
from unit.dispatcher import test_jobs as test_job_rules

from hpcpanda.dispatcher.store.postgres import PostgresDatabase

_DATABASES = {"shared", "dispatcher", "user", "edge", "bench", "honest", "hostile"}
"""Fixtures over a database: here they are PostgreSQL's."""

hpcpanda = test_jobs.hpcpanda
honest, hostile, task_id = test_hostile_edge.honest, test_hostile_edge.hostile, test_hostile_edge.task_id
for _suite in (test_api, test_jobs, test_job_rules, test_bad_input, test_hostile_edge, test_openapi):
    for _name, _test in vars(_suite).items():
        if (
            _name.startswith("test_")
            and callable(_test)
            and _DATABASES & inspect.signature(_test).parameters.keys()
        ):
            assert _name not in globals(), f"two suites have a test {_name}"
            globals()[_name] = _test


def test_there_are_suites() -> None:
    """The suites were found: as many tests as they had when this was written, at least."""
    assert sum(name.startswith("test_") and callable(test) for name, test in globals().items()) > 40


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,  # noqa: F811
) -> Iterator[RunningDispatcher]:
    """A dispatcher over PostgreSQL that the tests of this module share."""
    url = postgres_server.create_database(TEMPLATE)
    with running_dispatcher(tmp_path_factory.mktemp("dispatcher") / "state", database=url) as dispatcher:
        yield dispatcher


class OwnDispatcher:
    """A dispatcher over PostgreSQL for tests that want one of their own: emptied for each, not started for each."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self._folder = folder
        self._server = server
        self._stack = ExitStack()
        self._running: RunningDispatcher | None = None

    def get(self) -> RunningDispatcher:
        """A running one without tasks and edges; another one when a test has stopped it."""
        if self._running is None or self._running.process.poll() is not None:
            self.close()
            url = self._server.create_database(TEMPLATE)
            state = Path(tempfile.mkdtemp(dir=self._folder)) / "state"
            self._running = self._stack.enter_context(running_dispatcher(state, database=url))
        database = str(self._running.settings.database).rpartition("/")[2]
        self._server.execute(database, "TRUNCATE tasks, edges RESTART IDENTITY CASCADE")
        return self._running

    def close(self) -> None:
        """Stop it."""
        self._stack.close()


@pytest.fixture(scope="module")
def own(
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,  # noqa: F811
) -> Iterator[OwnDispatcher]:
    made = OwnDispatcher(tmp_path_factory.mktemp("own"), postgres_server)
    yield made
    made.close()


@pytest.fixture
def dispatcher(own: OwnDispatcher) -> RunningDispatcher:
    """A dispatcher over PostgreSQL of the test's own."""
    return own.get()


@pytest.fixture
async def bench(postgres_url: str) -> AsyncIterator[test_job_rules.Bench]:  # noqa: F811
    """Use cases over PostgreSQL."""
    database = PostgresDatabase(postgres_url)
    bench = test_job_rules.Bench(database)
    await bench.register()
    yield bench
    await database.close()


class LedgerInPostgres(LedgerMachine):
    """Over a new database every time."""

    server: PostgresServer

    def open_database(self, folder: Path) -> PostgresDatabase:
        return PostgresDatabase(self.server.create_database(TEMPLATE), connections=2)


LedgerInPostgres.TestCase.settings = settings(
    max_examples=5, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestLedgerInPostgres(LedgerInPostgres.TestCase):
    @pytest.fixture(autouse=True)
    def _server(self, postgres_server: PostgresServer) -> None:  # noqa: F811
        LedgerInPostgres.server = postgres_server
