"""Jobs that take the same of some resource: chains in time, dealt so that the other resources are even."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.packing.bounds import lower_bound
from hpcpanda.packing.placement import nodes_needed
from hpcpanda.packing.placing.chains import Chained, chained, chains
from tests.support.packing_families import FAMILIES


def placed(demand: list[list[float]], seconds: list[float], capacity: list[float]) -> Chained | None:
    """Chains of few jobs within 4 s."""
    return chained(np.array(demand), np.array(seconds), np.array(capacity), 4.0, below=100)


def test_jobs_of_a_chain_follow_each_other() -> None:
    """Each job is in one chain, begins when the one before ends, and ends in time."""
    seconds = np.random.default_rng(1).uniform(0.1, 3.0, 500)
    chain, start = chains(seconds, 4.0)
    for number in range(int(chain.max()) + 1):
        here = np.flatnonzero(chain == number)
        here = here[np.argsort(start[here])]
        ends = start[here] + seconds[here]
        assert start[here[0]] == 0.0
        assert np.allclose(start[here[1:]], ends[:-1])
        assert ends[-1] <= 4.0 + 1e-9
    assert chain.max() + 1 <= 1.02 * seconds.sum() / 4.0 + 1


def test_heavy_and_light_share_nodes() -> None:
    """Of four jobs with 7 of 16 of memory and four with 1, two of each fill a node exactly."""
    found = placed([[1.0, 7.0]] * 4 + [[1.0, 1.0]] * 4, [4.0] * 8, [4.0, 16.0])
    assert found is not None
    assert found.count == 2
    assert np.bincount(found.node[:4]).tolist() == np.bincount(found.node[4:]).tolist() == [2, 2]


def test_a_chain_runs_backwards_where_that_fits() -> None:
    """Two heavy jobs do not fit at the same time: one of them comes first in its slot, the other last."""
    found = placed([[1.0, 3.0]] * 2 + [[1.0, 1.0]] * 2, [2.0, 2.0, 1.9, 1.9], [2.0, 4.0])
    assert found is not None
    assert found.count == 1
    assert sorted(found.start[:2]) == [0.0, 2.0]


def test_slots_alone() -> None:
    """Where nothing but cores is asked for, nodes are as many as the slots say."""
    found = placed([[2.0]] * 9, [2.0] * 9, [5.0])
    assert found is not None
    assert found.count == 3


@pytest.mark.parametrize(
    ("demand", "below"), [([[1.0, 2.0], [2.0, 1.0]], 100), ([[1.0, 4.0]] * 8, 2), ([[0.0, 0.0]] * 2, 100)]
)
def test_nothing_is_said_of_other_jobs(demand: list[list[float]], below: int) -> None:
    """No resource that all ask for alike, or no fewer nodes: None."""
    table = np.array(demand)
    assert chained(table, np.full(len(table), 3.0), np.array([4.0, 4.0]), 4.0, below=below) is None


def test_too_much_of_another_resource_takes_more_nodes_or_none() -> None:
    """Slots for all on one node, memory for two of them: never an overfull plan."""
    found = placed([[1.0, 8.0]] * 6, [4.0] * 6, [8.0, 16.0])
    assert found is not None
    assert found.count == 3
    demand = [[1.0, 8.0 + i / 10] for i in range(6)]
    assert placed(demand, [4.0] * 6, [8.0, 16.0]) is None, "no two fit: six nodes, beyond what is tried"


@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_perlmutter_is_optimal(n: int) -> None:
    """ePIC's jobs, of about half the time of an allocation each: as few nodes as are proven to be needed."""
    family = FAMILIES["perlmutter"]
    jobs = family.jobs(n, seed=0)
    count, _ = nodes_needed(jobs, family.kind, family.seconds)
    assert count == lower_bound(jobs, family.kind, family.seconds).nodes


def test_little_memory_is_kept_to() -> None:
    """ePIC's jobs with hardly the memory for as many as there are cores: no moment has too much."""
    family = FAMILIES["perlmutter"]
    jobs = family.jobs(800, seed=3)
    capacity = np.array([128.0, 258_000.0])
    demand = jobs.demand()[:, :2]
    found = chained(demand, jobs.seconds, capacity, family.seconds, below=100)
    assert found is not None
    for time in found.start.tolist():
        runs = (found.start <= time) & (time + 1e-6 < found.start + jobs.seconds)
        for i in range(2):
            assert np.bincount(found.node[runs], demand[runs, i]).max() <= capacity[i]
