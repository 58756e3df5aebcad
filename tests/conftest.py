"""Fixtures and rules shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

os.environ.setdefault("UCX_NET_DEVICES", "lo")  # MPI of several ranks listens on loopback only


_REAL_PARTS = {"integration", "campaign"}
"""Tests of real clusters, services and kills: one that fails is tried once more, and both are reported, since a machine
that others use too can be late at any moment. The rest has no such excuse."""


_OF_PYTHON = "AST constructor recursion depth mismatch"
"""CPython 3.11 (gh-106905): parsing fails when the garbage collector runs something in the middle that parses too, as the
report of an unraisable error does. pydantic parses for the docstrings of attributes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of real parts, and all for what Python itself gets wrong."""
    for item in items:
        real = _REAL_PARTS & set(item.path.parts)
        item.add_marker(
            pytest.mark.flaky(reruns=1) if real else pytest.mark.flaky(reruns=2, only_rerun=[_OF_PYTHON])
        )


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
