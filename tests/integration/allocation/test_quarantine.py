"""Nodes in quarantine, in real packs: nothing is started on them where there is another."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace

import pytest

from hpcpanda.allocation.node_quarantine import QUARANTINED, QuarantinedNodes
from hpcpanda.allocation.plan import AllocationPlan, Pack, TaskWork, WorkPack
from hpcpanda.allocation.spool import write_message
from hpcpanda.domain.failures import FailureFacts, NodeQuarantine
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.jobs import JobPayload, JobRequest
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.task import TaskSpec
from hpcpanda.events.journal import read_journal
from tests.support.allocation import Rig, event_pack, leased

RigMaker = Callable[..., Rig]


def name_nodes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each rank a node's name, n0 and n1, as Slurm does."""
    wrapper = rig.folder / "as-slurm"
    wrapper.write_text('#!/bin/sh\nexport SLURMD_NODENAME=n${PMI_RANK:-0}\nexec "$@"\n')
    wrapper.chmod(stat.S_IRWXU)
    plain = Rig._plan

    def plan(self: Rig, packs: tuple[Pack, ...]) -> AllocationPlan:
        made = plain(self, packs)
        launcher = replace(made.site.launcher, command=("mpiexec", "-n", "{ranks}", str(wrapper)))
        return replace(made, site=replace(made.site, launcher=launcher))

    monkeypatch.setattr(Rig, "_plan", plan)


def quarantine(rig: Rig, *names: str) -> None:
    """What the edge has left."""
    rig.spool.path.mkdir(parents=True, exist_ok=True)
    nodes = tuple(NodeQuarantine(node=name, until=1e11, why="Uncorrectable ECC.") for name in names)
    write_message(rig.spool.quarantine, QUARANTINED, QuarantinedNodes(nodes=nodes))


def by_rank(rig: Rig) -> dict[str, int]:
    """Finished ranges in the journals of each rank."""
    found: dict[str, int] = {}
    for path in rig.journals():
        rank = path.stem.rpartition("-")[2]
        found[rank] = found.get(rank, 0) + len(read_journal(path).entries)
    return {rank: count for rank, count in found.items() if count}


def jobs(count: int, nodes: int) -> WorkPack:
    spec = TaskSpec(
        name="jobs",
        payload=JobPayload(command=("sleep", "0.05")),
        output=Output(file="out.zip", format=OutputFormat.ZIP),
        jobs=count,
        job=JobRequest(walltime_s=20.0, memory_mb=100),
    )
    return WorkPack(
        pack_id="p", nodes=nodes, work=(TaskWork(task_id=1, spec=spec, events=leased((1, 0, count))),)
    )


@pytest.mark.parametrize("bad", ["n0", "n1"])
def test_events_run_on_the_other_node(rig: RigMaker, monkeypatch: pytest.MonkeyPatch, bad: str) -> None:
    """All of them, once; the director may be on the node that stays out."""
    a = rig(nodes=2)
    name_nodes(a, monkeypatch)
    quarantine(a, bad)
    a.start(event_pack((1, 0, 2000), nodes=2, settings={"event_ms": 0.2}))
    assert a.wait() == 0
    assert a.done() == {1: IntervalSet.span(0, 2000)}
    assert by_rank(a).keys() == {"r1" if bad == "n0" else "r0"}


def test_jobs_run_on_the_other_node(rig: RigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the pack complains of the one that stays out."""
    a = rig(nodes=2)
    name_nodes(a, monkeypatch)
    quarantine(a, "n1")
    a.start(jobs(10, nodes=2))
    assert a.wait() == 0
    assert a.done(content=False) == {1: IntervalSet.span(0, 10)}
    assert by_rank(a).keys() == {"r0"}
    (complaint,) = a.pack().complaints
    assert "n1 is in quarantine. Uncorrectable ECC." in complaint


@pytest.mark.parametrize(("nodes", "bad"), [(1, ("n0",)), (2, ("n0", "n1"))])
def test_a_pack_without_another_node_runs_all_the_same(
    rig: RigMaker, monkeypatch: pytest.MonkeyPatch, nodes: int, bad: tuple[str, ...]
) -> None:
    """A doubtful node is better than none: nothing waits for ever."""
    a = rig(nodes=nodes)
    name_nodes(a, monkeypatch)
    quarantine(a, *bad)
    a.start(jobs(6, nodes=nodes))
    assert a.wait() == 0
    assert a.done(content=False) == {1: IntervalSet.span(0, 6)}


def test_a_failed_event_names_its_node(rig: RigMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what fails on one node only can be put down to it; as the batch system calls it."""
    a = rig(nodes=2)
    name_nodes(a, monkeypatch)
    quarantine(a, "n0")
    a.start(event_pack((1, 0, 20), nodes=2, settings={"bad": 7, "how": "raise"}, attempts=2))
    assert a.wait() == 0
    (failed,) = a.failed()
    assert (failed.event, failed.facts) == (7, FailureFacts(node="n1"))


def test_a_damaged_file_stops_nothing(rig: RigMaker) -> None:
    """It is as if it were not there."""
    a = rig()
    a.spool.path.mkdir(parents=True)
    a.spool.quarantine.write_text("{")
    a.start(event_pack((1, 0, 100)))
    assert a.wait() == 0
    assert a.done() == {1: IntervalSet.span(0, 100)}
