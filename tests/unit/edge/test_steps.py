"""Steps of the edge's round: how a pack is judged when it has ended."""

from __future__ import annotations

from pathlib import Path

from hpcpanda_edge import accounts
from hpcpanda_edge.records import AllocationRecord, PackRecord, PartRecord
from hpcpanda_edge.steps import FRUITLESS_LIMIT, Steps
from support.edge import small_site
from support.edge_books import fresh

from hpcpanda.allocation.plan import PackStatus
from hpcpanda.allocation.spool import Spool


def test_a_pack_whose_nodes_are_at_fault_leaves_the_reason_and_no_fault_of_the_task(tmp_path: Path):
    """The next try is put off again and again, with what the nodes complain of; the task is not to blame."""
    store = fresh(tmp_path / "edge.sqlite", held=0)
    steps = Steps(store, Spool(tmp_path), small_site(tmp_path))
    status = PackStatus(pack_id="p1", state="ended", complaints=("node 0 gets no jobs: n1: no scratch",))
    pack = PackRecord(pack_id="p1", kind="work", nodes=1, parts=(PartRecord(task_id=1),))
    for number in range(FRUITLESS_LIMIT + 1):
        name = f"a{number}"
        with store.transaction():
            record = AllocationRecord(allocation_id=name, nodes=1, walltime_s=60, packs=(pack,), created=0.0)
            store.allocations.put(record)
            accounts.hand_out(store, 1, record.holder("p1"), 10)
            assert steps.settle(name, "p1", 1, status, 100.0, late=False) == 10
    task = store.tasks[1]
    assert task.error == "node 0 gets no jobs: n1: no scratch"
    assert (task.fault, task.fruitless) == (None, FRUITLESS_LIMIT + 1)
    assert task.not_before > 100.0
    store.close()
