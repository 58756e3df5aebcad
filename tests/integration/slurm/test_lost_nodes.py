"""An allocation goes on with the nodes that are left of it."""

from __future__ import annotations

from pathlib import Path

from hpcpanda.domain.intervals import IntervalSet
from tests.support.allocation import event_pack
from tests.support.slurm import SlurmCluster
from tests.support.slurm_services import SlurmRig

NODES = 4
EVENTS = 2000


def test_a_pack_goes_on_with_the_nodes_that_are_left(slurm: SlurmCluster, tmp_path: Path) -> None:
    """One of four nodes dies under a pack: it is started again on three, and does what is left."""
    file = tmp_path / "hold"
    file.touch()
    a = SlurmRig(tmp_path, nodes=NODES, cores=1, cluster=slurm, walltime_s=300.0, linger_s=1.0)
    settings = {"file": str(file), "at": EVENTS - 1}
    a.start(
        event_pack((1, 0, EVENTS), nodes=NODES, call="slurm_payload:hold", settings=settings, max_events=50)
    )
    a.until(lambda: a.pack().done >= EVENTS // 2, "half of the events")
    victim = slurm.nodes[-1]
    slurm.kill_node(victim, noticed=True)
    try:
        a.until(lambda: a.status().nodes == NODES - 1, "the loss of the node", seconds=90)
        a.until(lambda: a.pack().state == "running" and a.pack().cores == NODES - 1, "the second run")
        assert a.pack().nodes == NODES - 1
        file.unlink()
        slurm.wait_for(a.job_id, "COMPLETED", seconds=60)
    finally:
        slurm.start_node(victim)
        slurm.run("scontrol", "update", f"NodeName={victim}", "State=RESUME")
    assert a.done() == {1: IntervalSet.span(0, EVENTS)}
    assert a.failed() == []
    assert [note["nodes"] for note in a.history("nodes-lost")] == [NODES - 1]
