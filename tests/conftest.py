"""Fixtures and rules shared by all tests."""

from __future__ import annotations

import ast
import gc
import os
from collections.abc import Generator
from typing import Any

import pytest

os.environ.setdefault("UCX_NET_DEVICES", "lo")  # MPI of several ranks listens on loopback only


_parse = ast.parse


def _parse_undisturbed(*words: Any, **more: Any) -> Any:
    """Parse with the garbage collector off. CPython 3.11 sometimes fails here with "AST constructor recursion depth mismatch"
    (compare gh-106905), where pydantic parses for the docstrings of attributes; a parse inside a parse, started by the
    collector, is the likely cause."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return _parse(*words, **more)
    finally:
        if collects:
            gc.enable()


ast.parse = _parse_undisturbed

_REAL_PARTS = {"integration", "chaos", "campaign"}
"""Tests of real clusters, services and kills: one that fails is tried once more, and both are reported, since a machine
that others use too can be late at any moment. The rest has no such excuse."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of real parts."""
    for item in items:
        if _REAL_PARTS & set(item.path.parts):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With REQUIRE_ALL=1 a skip is a failure: every part of the system must be there."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("REQUIRE_ALL") == "1":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and REQUIRE_ALL=1 forbids that: {report.longrepr}"
    return report
