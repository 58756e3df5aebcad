"""The test cluster itself behaves as Slurm does on a real machine."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from tests.support.services import wait_until
from tests.support.slurm import NotInstalled, SlurmCluster, alive, cluster

MPI_PROGRAM = """
import os, sys
from mpi4py import MPI
world = MPI.COMM_WORLD
names = world.gather((world.rank, os.environ["SLURMD_NODENAME"]))
total = world.allreduce(world.rank)
if world.rank == 0:
    print(sys.stdin.read().strip(), total, *(name for _, name in sorted(names)))
"""

TELLING_JOB = """
echo run ${SLURM_RESTART_COUNT:-0}
cat > step.sh <<'END'
trap 'echo told $(date +%s.%N)' TERM
while true; do sleep 0.1; echo alive $(date +%s.%N); done
END
exec srun bash step.sh
"""


def test_a_command_runs_on_every_node(slurm: SlurmCluster) -> None:
    """srun reaches four nodes that know their own names."""
    assert (
        slurm.run("srun", "--nodes=4", "hostname").stdout.splitlines()
        == [slurm.run("hostname").stdout.strip()] * 4
    )
    names = slurm.run("srun", "--nodes=4", "printenv", "SLURMD_NODENAME").stdout.split()
    assert sorted(names) == ["n1", "n2", "n3", "n4"]


@pytest.mark.parametrize("partition", ["backfill", "urgent"])
def test_a_batch_job_runs_and_is_accounted(slurm: SlurmCluster, partition: str) -> None:
    """Both partitions take jobs; output and accounting tell what ran where."""
    job = slurm.sbatch(
        "srun printenv SLURMD_NODENAME | sort", f"--partition={partition}", "--nodes=2", "--job-name=two"
    )
    slurm.wait_for(job, "COMPLETED")
    assert slurm.output(job).split() == ["n1", "n2"]
    (row,) = slurm.accounting(job)
    assert (row["JobState"], row["Partition"], row["Name"], row["NodeCnt"]) == (
        "COMPLETED",
        partition,
        "two",
        "2",
    )


def test_an_urgent_job_preempts_and_the_other_is_queued_again(slurm: SlurmCluster) -> None:
    """The step is told by SIGTERM, killed after the grace time at the earliest, and the job runs again under its id."""
    job = slurm.sbatch(TELLING_JOB, "--nodes=2")
    slurm.wait_for(job, "RUNNING")
    wait_until(lambda: len(_times(slurm, job, "alive")) > 1, "the begin of the step")
    urgent = slurm.preempt(seconds=1)
    slurm.wait_for(urgent, "COMPLETED", seconds=90)
    told, last = _times(slurm, job, "told"), _times(slurm, job, "alive")[-1]
    again = slurm.wait_for(job, "RUNNING")
    wait_until(lambda: "run 1" in slurm.output(job), "the second run")
    assert again["Restarts"] == "1"
    assert last - min(told) >= slurm.grace_s - 1  # whole seconds are Slurm's measure
    assert [row["JobState"] for row in slurm.accounting(job)] == ["PREEMPTED"]
    assert [row["JobState"] for row in slurm.accounting(urgent)] == ["COMPLETED"]


def _times(slurm: SlurmCluster, job: int, word: str) -> list[float]:
    """Times that the job printed behind a word; a last line that is still being written is not one."""
    whole, _, _ = slurm.output(job).rpartition("\n")
    lines = (line.split() for line in whole.splitlines())
    return [float(line[1]) for line in lines if len(line) == 2 and line[0] == word]


def test_mpi_of_the_wheel_runs_over_nodes(slurm: SlurmCluster, tmp_path: Path) -> None:
    """srun starts a program of the MPICH wheel with a rank a node; the first has the stdin."""
    program = tmp_path / "program.py"
    program.write_text(MPI_PROGRAM)
    words = ("srun", "--nodes=4", "--mpi=pmi2", "--input=0", sys.executable, str(program))
    assert slurm.run(*words, stdin="hello").stdout.split() == ["hello", "6", "n1", "n2", "n3", "n4"]


def test_a_killed_node_is_noticed_and_comes_back(slurm: SlurmCluster) -> None:
    """A lost node fails the job on it without a trace of its processes, and serves again when it is started."""
    job = slurm.sbatch("exec srun sleep 100", "--nodes=2", "--nodelist=n3,n4", "--no-requeue")
    slurm.wait_for(job, "RUNNING")
    wait_until(lambda: bool(slurm.processes("n4")), "the processes of the job")
    victims = slurm.processes("n4")
    slurm.kill_node("n4")
    assert not any(map(alive, victims))
    try:
        slurm.wait_for(job, "NODE_FAIL", "FAILED", "CANCELLED", seconds=60)
    finally:
        slurm.start_node("n4")


def test_nothing_is_left_of_a_cluster() -> None:
    """Jobs, step managers and daemons end with the cluster, and so does its folder."""
    try:
        with cluster(1) as own:
            slurmd = own.daemons["n1"].pid
            job = own.sbatch("trap '' TERM; sleep 100 & wait; sleep 100")
            own.wait_for(job, "RUNNING")
            wait_until(lambda: bool(own.processes("n1")), "the processes of the job")
            processes = own.processes("n1")
    except NotInstalled as problem:
        pytest.skip(str(problem))
    assert not own.folder.exists()
    assert not psutil.pid_exists(slurmd)
    assert not any(map(alive, processes))


def test_the_cluster_listens_on_loopback_only(slurm: SlurmCluster) -> None:
    """No daemon of the cluster can be reached from another machine."""
    listening = [
        connection.laddr.ip
        for daemon in slurm.daemons.values()
        for connection in psutil.Process(daemon.pid).net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) == 1 + slurm.count
    assert set(listening) == {"127.0.0.1"}
