"""MPI jobs of users over nodes of a batch job, started by the head's launchers with the words of the shipped site file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcpanda.allocation.launch import DirectLauncher, PackLauncher
from hpcpanda.allocation.launch_parsl import ParslLauncher
from hpcpanda.allocation.plan import AllocationPlan
from hpcpanda.domain.site import PackVia
from hpcpanda.events.journal import read_journal
from tests.support.mpi_job_rig import MpiJobRig, StartedPack, mpi_pack, mpi_spec
from tests.support.processes import command_of
from tests.support.services import wait_until
from tests.support.slurm import SlurmCluster
from tests.support.slurm_services import SlurmRig, cluster_site

Maker = Callable[..., MpiJobRig]
NODES = 3


@pytest.fixture
def rig(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    """Makes this process the head of a batch job of three nodes."""
    made: list[MpiJobRig] = []
    path = os.environ["PATH"]

    def make(via: PackVia, *options: str) -> MpiJobRig:
        job = slurm.sbatch("exec sleep 600", f"--nodes={NODES}", "--exclusive", *options)
        nodes = slurm.wait_for(job, "RUNNING")["NodeList"]
        for name, value in (("JOB_ID", str(job)), ("JOBID", str(job)), ("NODELIST", nodes)):
            monkeypatch.setenv(f"SLURM_{name}", value)
        site = cluster_site(tmp_path / "spool", nodes=NODES, cores=2)
        plan = AllocationPlan(allocation_id="a", site=site, nodes=NODES, walltime_s=600, packs=())
        launcher: PackLauncher = (
            DirectLauncher(site.launcher) if via is PackVia.DIRECT else ParslLauncher(plan)
        )
        made.append(MpiJobRig(site, launcher))
        return made[-1]

    yield make
    for one in made:
        one.close()
    assert (os.environ["PATH"], os.environ.get("PBS_NODEFILE")) == (path, None), "left to what comes later"
    wait_until(lambda: not any(_of_jobs(slurm, node) for node in slurm.nodes), "the end of all ranks")


def _of_jobs(slurm: SlurmCluster, node: str) -> list[str]:
    return [c for p in slurm.processes(node) if "mpi4py" in (c := command_of(p))]


def nodes_of(pack: StartedPack) -> list[str]:
    """Nodes that a job's ranks saw."""
    words = pack.output()[1]["stdout.txt"].decode().split()
    return words[words.index("nodes") + 1 : words.index("words")]


@pytest.mark.parametrize("via", PackVia)
def test_jobs_have_nodes_of_their_own(rig: Maker, tmp_path: Path, via: PackVia) -> None:
    """Two jobs of two and one nodes run at the same time; a third one runs on what the first has left."""
    a = rig(via)
    go = tmp_path / "go"
    small = a.start(mpi_pack(mpi_spec(wait_for(go), nodes=1), pack_id="small", job=1))
    large = a.start(mpi_pack(mpi_spec(ranks_per_node=2), pack_id="large", job=2))
    assert large.until_exit(60).error is None
    again = a.start(mpi_pack(mpi_spec(), pack_id="again", job=3))
    assert again.until_exit(60).error is None
    go.touch()
    assert small.until_exit(60).error is None
    assert large.output()[1]["stdout.txt"].startswith(b"size 4 ")
    assert len(nodes_of(large)) == len(nodes_of(again)) == 2
    assert sorted(nodes_of(small) + nodes_of(large)) == ["n1", "n2", "n3"]


@pytest.mark.parametrize("via", PackVia)
def test_a_job_that_fails_costs_only_itself(rig: Maker, tmp_path: Path, via: PackVia) -> None:
    """A rank that exits, and one that aborts, fail their own job; the other goes on, and their nodes serve again."""
    a = rig(via)
    go = tmp_path / "go"
    other = a.start(mpi_pack(mpi_spec(wait_for(go), nodes=1), pack_id="other", job=1))
    leave = "world.Barrier()\nif world.rank == 1: os._exit(3)\ntime.sleep(600)"
    bad = a.start(mpi_pack(mpi_spec(leave), pack_id="bad", job=2))
    assert bad.until_exit(60).error is None
    ((failed,),) = [group.events for group in bad.recorded.failed]
    assert "Exited with exit code 3" in failed.error
    abort = a.start(
        mpi_pack(mpi_spec("if world.rank == 1: world.Abort(4)\ntime.sleep(600)"), pack_id="abort")
    )
    assert abort.until_exit(60).error is None
    assert len(abort.recorded.failed) == 1
    go.touch()
    assert other.until_exit(60).done == 1


def test_a_lost_node_costs_only_what_ran_there(rig: Maker, slurm: SlurmCluster, tmp_path: Path) -> None:
    """With --no-kill the batch job goes on: the job that spans the node is undone, and runs again elsewhere."""
    a = rig(PackVia.DIRECT, "--no-kill")
    go = tmp_path / "go"
    other = a.start(mpi_pack(mpi_spec(wait_for(go), nodes=1), pack_id="other", job=1))
    begun(a, "other")
    lost = a.start(mpi_pack(mpi_spec(wait_for(go)), pack_id="lost", job=2))
    last_node = begun(a, "lost")[-1]
    slurm.kill_node(last_node, noticed=True)
    try:
        ended = lost.until_exit(90)
        assert ended.error is not None
        assert "not by itself" in ended.error
        assert not lost.journal.exists()
        go.touch()
        assert other.until_exit(60).done == 1
        again = a.start(mpi_pack(mpi_spec(), pack_id="lost", job=2), incarnation=1)
        assert again.until_exit(60).done == 1
        assert last_node not in nodes_of(again)
    finally:
        slurm.start_node(last_node)


def test_a_preempted_job_stays_undone(rig: Maker, slurm: SlurmCluster) -> None:
    """Slurm tells the ranks; that they end is no failure, even of the last attempt."""
    a = rig(PackVia.DIRECT)
    pack = a.start(mpi_pack(mpi_spec("time.sleep(600)")))
    begun(a, "m")
    slurm.preempt(seconds=1)
    ended = pack.until_exit(60)
    assert ended.error is not None
    assert not pack.journal.exists()


@pytest.mark.parametrize("via", PackVia)
def test_the_head_runs_mpi_jobs(slurm: SlurmCluster, tmp_path: Path, via: PackVia) -> None:
    """Jobs of two nodes run one after the other on three, and one of one node beside them; each is recorded once."""
    a = SlurmRig(tmp_path, nodes=NODES, cores=2, cluster=slurm, via=via, walltime_s=300.0, linger_s=1.0)
    packs = [
        mpi_pack(mpi_spec(nodes=nodes), pack_id=f"m{job}", job=job) for job, nodes in enumerate((2, 1, 2))
    ]
    a.start(*packs)
    slurm.wait_for(a.job_id, "COMPLETED", seconds=120)
    assert [int(e["first"]) for path in a.journals() for e in read_journal(path).entries] == [0, 1, 2]
    assert {p.pack_id: (p.state, p.done, p.error) for p in a.status().packs} == {
        pack.pack_id: ("ended", 1, None) for pack in packs
    }


def test_the_head_goes_on_when_a_node_is_lost(slurm: SlurmCluster, tmp_path: Path) -> None:
    """With the options of the shipped site file the job whose node died is run again on those that are left."""
    a = SlurmRig(tmp_path, nodes=NODES, cores=2, cluster=slurm, walltime_s=300.0, linger_s=1.0)
    go = tmp_path / "go"
    a.start(mpi_pack(mpi_spec(wait_for(go)), job=1))
    file = a.allocation.path / "work" / "m-i0" / "stdout.txt"
    a.until(lambda: b"words" in file.read_bytes(), "the begin of the job")
    victim = file.read_text().split("nodes ")[1].split()[1]
    slurm.kill_node(victim, noticed=True)
    try:
        a.until(lambda: len(a.history("pack-started")) == 2, "the second start", seconds=60)
        go.touch()
        slurm.wait_for(a.job_id, "COMPLETED", seconds=60)
    finally:
        slurm.start_node(victim)
    assert [int(e["first"]) for path in a.journals() for e in read_journal(path).entries] == [1]
    assert a.failed() == []


def wait_for(file: Path) -> str:
    """Python of a job that lasts until there is such a file."""
    return f"while not os.path.exists({str(file)!r}): time.sleep(0.05)"


def begun(a: MpiJobRig, pack_id: str) -> list[str]:
    """Wait for what rank 0 prints; gives the nodes of the job."""
    file = a.folder.path / "work" / f"{pack_id}-i0" / "stdout.txt"
    wait_until(lambda: file.exists() and b"words" in file.read_bytes(), f"the begin of {pack_id}")
    words = file.read_text().split()
    return words[words.index("nodes") + 1 : words.index("words")]
