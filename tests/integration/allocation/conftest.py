"""A fixture that makes allocations and asserts that nothing of them is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.allocation import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Makes an allocation; at the end no process and no temporary file of it may be left."""
    rigs: list[Rig] = []

    def make(**settings: Any) -> Rig:
        folder = tmp_path / str(len(rigs))
        folder.mkdir()
        rigs.append(Rig(folder, **settings))
        return rigs[-1]

    yield make
    for made in rigs:
        ended = made.head is None or made.head.poll() is not None
        left = made.gone() if ended else made.processes()
        for _, process in left:
            process.kill()
        for head in made.heads:
            head.wait()
        assert not left, f"still alive: {left}\n{made.log()}"
        if made.temporary.exists():
            made.until(lambda made=made: not list(made.temporary.iterdir()), "the removal of temporary files")
