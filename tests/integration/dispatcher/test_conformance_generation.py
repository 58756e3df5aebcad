"""Tasks that are cut into jobs, and scouts: PostgreSQL does what SQLite does."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator

import pytest
from support.datasets import DataBench
from support.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from unit.dispatcher import test_generation, test_generation_datasets
from unit.dispatcher.test_jobs import Bench

from hpcpanda.dispatcher.store.postgres import PostgresDatabase

for _suite in (test_generation, test_generation_datasets):
    for _name, _test in vars(_suite).items():
        if (
            _name.startswith("test_")
            and callable(_test)
            and {"bench", "data"} & inspect.signature(_test).parameters.keys()
        ):
            globals()[_name] = _test


@pytest.fixture
async def bench(postgres_url: str) -> AsyncIterator[Bench]:  # noqa: F811
    """Use cases over PostgreSQL."""
    database = PostgresDatabase(postgres_url)
    made = Bench(database)
    await made.register()
    yield made
    await database.close()


@pytest.fixture
async def data(postgres_url: str) -> AsyncIterator[DataBench]:  # noqa: F811
    """Datasets over PostgreSQL."""
    database = PostgresDatabase(postgres_url)
    made = DataBench(database)
    await made.register("a", "b")
    yield made
    await database.close()


def test_the_suites_were_found() -> None:
    """As many tests as it had when this was written, at least."""
    assert sum(name.startswith("test_") and callable(test) for name, test in globals().items()) > 18
