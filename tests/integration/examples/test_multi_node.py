"""What the multi-node recipes share, run as MPI programs. Dask and Ray themselves are not installed for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcpanda.client.task_file import load_task
from hpcpanda.domain.jobs import JobPayload

EXAMPLES = Path(__file__).parents[3] / "examples" / "multi_node"
LEAD = """
import os, sys
sys.path.insert(0, sys.argv[1])
import ranks
comm = ranks.MPI.COMM_WORLD
def lead():
    told = comm.bcast(ranks.address())
    print(comm.gather((told, ranks.THREADS)), flush=True)
    {work}
def follow():
    told = comm.bcast(None)
    comm.gather((told, ranks.THREADS))
    comm.Barrier()
ranks.run(lead, follow)
"""


def mpi(work: str) -> subprocess.CompletedProcess[str]:
    """Three ranks on this machine; rank 0 does this at the end."""
    mpiexec = Path(sys.executable).with_name("mpiexec")
    command = [mpiexec, "-n", "3", sys.executable, "-c", LEAD.format(work=work), EXAMPLES]
    environment = {**os.environ, "UCX_NET_DEVICES": "lo", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=environment)


def test_ranks_share_cores_and_meet_on_loopback() -> None:
    """On one node the address is loopback, and ranks that may use the same cores share them."""
    ended = mpi("comm.Barrier()")
    assert ended.returncode == 0, ended.stderr
    each = max(1, len(os.sched_getaffinity(0)) // 3)
    assert ended.stdout.strip() == str([("127.0.0.1", each)] * 3)


@pytest.mark.parametrize(
    ("work", "said"), [("raise ValueError('no')", "ValueError: no"), ("os._exit(7)", "")]
)
def test_the_end_of_rank_0_ends_the_others(work: str, said: str) -> None:
    """An exception, or a sudden end, while the others wait for rank 0 in MPI, fails the job."""
    ended = mpi(work)
    assert ended.returncode != 0
    assert said in ended.stderr


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_the_task_files_are_right(name: str) -> None:
    """They ask for several nodes and start the script beside them."""
    spec = load_task(EXAMPLES / f"{name}.toml")
    assert isinstance(spec.payload, JobPayload)
    assert spec.job_request is not None
    assert spec.job_request.nodes == 3
    assert Path(spec.payload.command[1]).is_file()
    compile(Path(spec.payload.command[1]).read_text(), name, "exec")
