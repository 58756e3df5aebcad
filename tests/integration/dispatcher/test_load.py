"""The load generator itself, for two seconds: its edges lease and finish, and its count is that of the tables."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from benchmarks.dispatcher.bench_load import Load, run
from benchmarks.dispatcher.figures import cpu_of, percentile
from support.dispatcher import running_dispatcher
from support.postgres import postgres_server  # noqa: F401 - fixture

LOAD = Load(edges=4, seconds=1.0, jobs=100, syncs=2, rate=500.0, calls=20.0)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_simulated_edges_finish_jobs_and_small_calls_are_answered(database: str) -> None:
    """At a steady rate and flat out, jobs are leased and finished, every kind of small call is made, nothing fails;
    ``run`` itself compares the count with the tables."""
    for measured in run(database, LOAD):
        assert measured.edges.finished > 0
        assert measured.edges.leased == measured.edges.finished
        assert measured.calls.calls >= 20
        assert not measured.edges.errors + measured.calls.errors


def test_the_first_request_is_no_dearer_than_others(tmp_path: Path) -> None:
    """A dispatcher that says where it listens has made its routes, which takes a second: the first request costs it little."""
    with running_dispatcher(tmp_path / "state") as dispatcher:
        before = cpu_of([dispatcher.process.pid])
        assert httpx2.get(f"{dispatcher.url}/v1/health", timeout=60).status_code == 200
        assert cpu_of([dispatcher.process.pid]) - before < 0.3


def test_percentiles_are_by_nearest_rank() -> None:
    """Of 1..100 half are at most 50 and 99 in a hundred at most 99; of nothing it is 0."""
    values = [float(n) for n in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0], 0.99) == 3.0
