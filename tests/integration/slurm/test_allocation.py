"""The head and its packs inside a batch job, with the launcher's words of the shipped site file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpcpanda.allocation.plan import Drain, TopUp
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.events.journal import read_journal
from tests.support.allocation import event_pack, leased
from tests.support.processes import command_of
from tests.support.services import wait_until
from tests.support.slurm import SlurmCluster
from tests.support.slurm_payload import held
from tests.support.slurm_services import SlurmRig

Maker = Callable[..., SlurmRig]


@pytest.fixture
def rig(slurm: SlurmCluster, tmp_path: Path) -> Iterator[Maker]:
    """Makes an allocation of two nodes with one core each; at the end nothing of it is left."""
    made: list[SlurmRig] = []

    def make(**settings: Any) -> SlurmRig:
        made.append(SlurmRig(tmp_path, **{"nodes": 2, "cores": 1, "cluster": slurm} | settings))
        return made[-1]

    yield make
    for one in made:
        if slurm.job(one.job_id)["JobState"] in ("RUNNING", "PENDING"):
            slurm.cancel(one.job_id)
    wait_until(lambda: not any(slurm.processes(n) for n in slurm.nodes), "the end of all processes")


def _rank(a: SlurmRig, number: int) -> psutil.Process:
    """The process of a rank."""
    found: list[psutil.Process] = []

    def there() -> bool:
        for process in a.slurm.processes(a.slurm.nodes[number]):
            with contextlib.suppress(psutil.Error, OSError):
                above = process.parent()
                if above and above.name() == "slurmstepd" and "work_pack" in command_of(process):
                    found.append(process)
        return bool(found)

    a.until(there, f"rank {number}")
    return found[0]


def test_a_pack_over_two_nodes_listens_to_the_head(rig: Maker) -> None:
    """All events are done once; a message of the edge reaches rank 0 while the pack runs, and its reports the head."""
    a = rig(linger_s=1.0)
    a.start(event_pack((1, 0, 1000), nodes=2, settings={"event_ms": 1}))
    a.until(lambda: a.pack().state == "running", "the begin of the pack")
    a.send(TopUp(pack_id="p", task_id=1, events=leased((2, 5000, 6000))))
    a.slurm.wait_for(a.job_id, "COMPLETED")
    assert a.done() == {1: IntervalSet.span(0, 1000), 2: IntervalSet.span(5000, 6000)}
    assert len(a.journals()) == 2
    assert (a.pack().state, a.pack().done, a.pack().cores) == ("ended", 2000, 2)
    assert a.status().inbox_read == 1
    assert a.log() == ""


def test_a_pack_whose_rank_was_killed_is_started_again(rig: Maker) -> None:
    """One lost rank ends the step; the next one waits for its nodes and does what is left."""
    a = rig()
    a.start(event_pack((1, 0, 1600), nodes=2, settings={"event_ms": 2}))
    a.until(lambda: a.pack().done > 0, "the first events")
    _rank(a, 1).kill()
    a.slurm.wait_for(a.job_id, "COMPLETED")
    assert a.done() == {1: IntervalSet.span(0, 1600)}
    assert a.failed() == []
    assert len(a.history("pack-started")) == 2


def test_two_packs_have_nodes_of_their_own(rig: Maker) -> None:
    """Packs that run at the same time are steps on different nodes."""
    a = rig()
    packs = [
        event_pack((1, 0, 300), pack_id=name, task_id=task, settings={"event_ms": 5})
        for task, name in enumerate(("p", "q"), start=1)
    ]
    a.start(*packs)
    a.until(lambda: all(a.pack(p).state == "running" for p in ("p", "q")), "both packs")
    busy = [node for node in ("n1", "n2") if _steps(a.slurm, node)]
    assert busy == ["n1", "n2"]
    a.slurm.wait_for(a.job_id, "COMPLETED")
    assert a.done(1) == a.done(2) == {1: IntervalSet.span(0, 300)}


def _steps(slurm: SlurmCluster, node: str) -> list[psutil.Process]:
    return [p for p in slurm.processes(node) if "work_pack" in command_of(p)]


def test_a_drain_ends_the_job(rig: Maker) -> None:
    """The head is told to drain: the job completes with what is journalled, long before its work is done."""
    a = rig()
    a.start(event_pack((1, 0, 10**6), nodes=2, settings={"event_ms": 2}))
    a.until(lambda: a.pack().done > 0, "the first events")
    a.send(Drain(grace_s=1.0))
    a.slurm.wait_for(a.job_id, "COMPLETED", seconds=30)
    assert a.status().state == "ended"
    assert len(a.done()[1]) >= a.pack().done > 0


def test_a_preempted_allocation_drains_in_its_grace_time(rig: Maker) -> None:
    """Slurm tells the ranks only: they end their ranges and journals, and the job is over before it would be killed."""
    a = rig()
    a.start(event_pack((1, 0, 10**6), nodes=2, settings={"event_ms": 2}))
    a.until(lambda: a.pack().done > 0, "the first events")
    urgent = a.slurm.preempt(seconds=1)
    a.slurm.wait_for(a.job_id, "COMPLETED", seconds=30)
    assert a.status().state == "ended"
    assert all(read_journal(path).closed for path in a.journals())
    assert len(a.done()[1]) == a.pack().done
    a.slurm.wait_for(urgent, "COMPLETED")


def test_a_killed_allocation_goes_on_when_its_job_is_queued_again(rig: Maker, tmp_path: Path) -> None:
    """A range outlasts the grace time: the job is killed and runs again under its id; every event is done once."""
    file = tmp_path / "hold"
    file.touch()
    a = rig(grace_s=60.0, walltime_s=300.0)
    settings = {"file": str(file), "at": 900}
    a.start(event_pack((1, 0, 1000), nodes=2, call="slurm_payload:hold", settings=settings, max_events=10))
    a.until(held(file).exists, "the range that cannot be hurried")
    a.until(lambda: bool(a.done()), "the first events")
    urgent = a.slurm.preempt(seconds=1)
    a.slurm.wait_for(urgent, "COMPLETED", seconds=90)
    before = a.done()[1]
    file.unlink()
    a.slurm.wait_for(a.job_id, "COMPLETED")
    assert 0 < len(before) < 1000
    assert a.done() == {1: IntervalSet.span(0, 1000)}
    assert {path.name for path in a.journals()} == {f"a-p-i{i}-r{r}.journal" for i in (0, 1) for r in (0, 1)}
    assert [row["JobState"] for row in a.slurm.accounting(a.job_id)] == ["PREEMPTED", "COMPLETED"]
