"""The simulator tells of a short scenario what the real edge makes of it on Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.slurm import SlurmCluster
from tests.support.truth import HostJob, Scenario, simulated
from tests.support.truth_reality import Reality

TOLERANCE = 0.4
"""Of the harvest, either way: in less than a minute a late second is some percent, and the machine may be busy."""
LATE_S = 12.0
"""A host job waits for the grace time, and for Slurm; both are to be seen in its start."""


@pytest.mark.alone
def test_the_simulators_harvest_is_that_of_reality(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Allocations held and events finished agree while the host takes half of the machine back; so does its start."""
    host = (HostJob(at=25.0, nodes=2, run_s=10.0, limit_minutes=1),)
    scenario = Scenario(seconds=55.0, host=host, preempts=True, job_count=4)
    reality = Reality(tmp_path, slurm, scenario)
    real = reality.harvest()
    model = simulated(scenario, reality.site, startup_s=real.startup_s)
    assert real.preempted == model.preempted == 1
    for name in ("held", "useful"):
        ratio = getattr(model, name) / getattr(real, name)
        assert 1 - TOLERANCE < ratio < 1 / (1 - TOLERANCE), f"{name}: {real} {model}"
    for start in (*real.host, *model.host):
        assert 25.0 - 1.0 <= start <= 25.0 + LATE_S
