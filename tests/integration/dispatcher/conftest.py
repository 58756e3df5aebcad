"""Fixtures for tests of the dispatcher."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from collections.abc import Iterator

import pytest
from support.dispatcher import RunningDispatcher, running_dispatcher

from hpcpanda.client.sdk import DispatcherClient


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDispatcher]:
    """A dispatcher that the tests of a module share; each works on tasks and edges of its own."""
    with running_dispatcher(tmp_path_factory.mktemp("dispatcher") / "state") as dispatcher:
        yield dispatcher


@pytest.fixture
def dispatcher(tmp_path: Path) -> Iterator[RunningDispatcher]:
    """A dispatcher of the test's own."""
    with running_dispatcher(tmp_path / "state") as running:
        yield running


@pytest.fixture
def user(dispatcher: RunningDispatcher) -> Iterator[DispatcherClient]:
    """The client of a user."""
    with dispatcher.user() as client:
        yield client


@pytest.fixture
def edge(dispatcher: RunningDispatcher) -> Iterator[DispatcherClient]:
    """The client of the edge ``local``, registered."""
    with dispatcher.edge() as client:
        yield client
