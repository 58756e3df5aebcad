"""A dispatcher and an edge that the tests of a module share."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from collections.abc import Iterator

import pytest
from support.chain import only_services_left, running
from support.services import Services, wait_until


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Services that a module's tests share; at the end nothing of their allocations is left."""
    with running(Services(tmp_path_factory.mktemp("chain"))) as shared:
        yield shared
        wait_until(lambda: only_services_left(shared), "the end of all allocations")
        shared.check_alive("edge")
        shared.check_alive("dispatcher")
