"""Samples of what batch systems print."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def noon() -> datetime:
    """The time of the samples."""
    return datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(scope="session")
def samples() -> dict[str, str]:
    """The samples by file name."""
    return {path.name: path.read_text() for path in DATA.iterdir()}
