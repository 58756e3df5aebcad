"""The same journals as in the unit tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

_UNIT = Path(__file__).parents[2] / "unit" / "merge" / "conftest.py"


def _making() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hpcpanda_tests_making", _UNIT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def making() -> ModuleType:
    """Module with ``Spool`` and payloads."""
    return _making()
