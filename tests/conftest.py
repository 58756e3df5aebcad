"""Fixtures and rules shared by all tests."""

from __future__ import annotations

import ast
import gc
import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("UCX_NET_DEVICES", "lo")  # MPI of several ranks listens on loopback only

# A machine that others use too may take a second for what takes a millisecond: no example fails for being slow.
settings.register_profile(
    "unhurried", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")

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


_LONG_FILES = (
    "slurm/test_mpi_jobs.py",
    "chaos/test_chaos.py",
    "campaign/test_campaign.py",
    "slurm/test_chain.py",
    "slurm/test_cluster.py",
    "slurm/test_allocation.py",
    "chain/test_command_line.py",
    "chain/test_urgent.py",
    "slurm/test_psij.py",
    "slurm/test_limits.py",
    "allocation/test_mpi_job.py",
)
"""Files of real parts that take a minute or so, longest first: they begin first where several run at the same time, so
that none is left over at the end."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known that `make test` goes by."""
    config.addinivalue_line("markers", "alone: measures time, so nothing else may run meanwhile")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of real parts, and let the longest begin first."""
    for item in items:
        if _REAL_PARTS & set(item.path.parts):
            item.add_marker(pytest.mark.flaky(reruns=1))
    places = {name: place for place, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


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
