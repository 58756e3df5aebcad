"""Start packs through Parsl's MPIExecutor, which gives each its own nodes of the allocation.

Parsl runs shell commands without a line to them; named pipes in a folder of the head's node make one.
The head never hands Parsl more than fits the free nodes: a backlogged MPI task makes its manager loop
(Parsl pull request 3800).
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import parsl
from parsl.addresses import address_by_hostname
from parsl.config import Config
from parsl.executors import MPIExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from hpcpanda.allocation.launch import MPI_PREFIX, RunningPack
from hpcpanda.allocation.launch_words import job_launcher, parsl_options
from hpcpanda.allocation.plan import AllocationPlan
from hpcpanda.domain.errors import SchedulerFailed

_LABEL = "packs"
_NODE_LISTS = ("SLURM_NODELIST", "PBS_NODEFILE", "COBALT_NODEFILE")
_LAUNCHERS = ("mpiexec", "srun", "aprun")


class ParslLauncher:
    """Packs as Parsl MPI apps."""

    def __init__(self, plan: AllocationPlan) -> None:
        launcher = Path(plan.site.launcher.command[0]).name
        if launcher not in _LAUNCHERS:
            raise SchedulerFailed(f"launcher.command: Parsl drives {', '.join(_LAUNCHERS)}, not {launcher!r}")
        shared = plan.site.nodes.oversubscribe
        if not shared and not any(name in os.environ for name in _NODE_LISTS):
            raise SchedulerFailed(
                f"Parsl finds its nodes in one of {', '.join(_NODE_LISTS)}, and none is set: this is no batch job; "
                "set nodes.oversubscribe or launcher.packs = 'direct' in the site file"
            )
        self._pack_options = parsl_options(plan.site.launcher.command)
        self._job_options = parsl_options(job_launcher(plan.site.launcher))
        self._folder = Path(tempfile.mkdtemp(prefix="hpcpanda-parsl-"))
        self._sockets = Path(
            tempfile.mkdtemp(prefix="hpcpanda-", dir="/tmp")
        )  # the paths of sockets must be short
        self._environment = {name: os.environ.get(name) for name in ("PATH", "PBS_NODEFILE")}
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        if shared:
            nodes = self._folder / "nodes"
            nodes.write_text("localhost\n" * plan.nodes)
            os.environ["PBS_NODEFILE"] = str(nodes)
        executor = MPIExecutor(
            label=_LABEL,
            mpi_launcher=launcher,
            max_workers_per_block=plan.nodes,
            address="127.0.0.1" if shared else address_by_hostname(),
            loopback_address="127.0.0.1",
            provider=LocalProvider(
                launcher=SimpleLauncher(),
                init_blocks=1,
                min_blocks=1,
                max_blocks=1,
                # its workers are ended without a chance to remove their temporary files
                worker_init=f"export TMPDIR={shlex.quote(str(self._sockets))}",
            ),
        )
        self._kernel = parsl.load(
            Config(executors=[executor], run_dir=str(self._folder), initialize_logging=False, retries=0)
        )
        self._app = parsl.bash_app(_command, executors=[_LABEL], data_flow_kernel=self._kernel)
        self._started = 0

    def start(self, module: str, run_file: Path, *, ranks: int, log: Path) -> RunningPack:
        """Start a pack; see :class:`~hpcpanda.allocation.launch.PackLauncher`."""
        line = f"$PARSL_MPI_PREFIX {_program(module, run_file)}"
        return self._submitted(line, log, nodes=ranks, ranks_per_node=1, options=self._pack_options)

    def start_mpi_job(
        self, module: str, run_file: Path, *, nodes: int, ranks_per_node: int, log: Path
    ) -> RunningPack:
        """Start an MPI job; see :class:`~hpcpanda.allocation.launch.PackLauncher`."""
        line = f'env {MPI_PREFIX}="$PARSL_MPI_PREFIX" {_program(module, run_file)}'
        return self._submitted(
            line, log, nodes=nodes, ranks_per_node=ranks_per_node, options=self._job_options
        )

    def _submitted(
        self, line: str, log: Path, *, nodes: int, ranks_per_node: int, options: str
    ) -> RunningPack:
        self._started += 1
        stem = self._folder / str(self._started)
        pack = _ParslPack(stem)
        pack.future = self._app(
            line,
            str(stem),
            str(log),
            parsl_resource_specification={
                "num_nodes": nodes,
                "ranks_per_node": ranks_per_node,
                "num_ranks": nodes * ranks_per_node,
                "launcher_options": options,
            },
        )
        return pack

    def close(self) -> None:
        """End Parsl and remove its folder; what is started later must not look for its nodes there."""
        self._kernel.cleanup()
        parsl.clear()
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for folder in (self._folder, self._sockets):
            shutil.rmtree(folder, ignore_errors=True)


def _program(module: str, run_file: Path) -> str:
    """The shell words of a program, with the temporary folder of the head instead of Parsl's."""
    return shlex.join(["env", f"TMPDIR={tempfile.gettempdir()}", sys.executable, "-m", module, str(run_file)])


def _command(line: str, stem: str, log: str, *, parsl_resource_specification: dict[str, Any]) -> str:
    """The shell line of a pack: its process number first, so that it can be ended."""
    del parsl_resource_specification
    return f"echo $$ >{stem}.pid; exec {line} <{stem}.in >{stem}.out 2>>{log}"


class _ParslPack:
    def __init__(self, stem: Path) -> None:
        self._stem = stem
        for suffix in (".in", ".out"):
            os.mkfifo(stem.with_suffix(suffix), 0o600)
        self._line = os.open(stem.with_suffix(".in"), os.O_RDWR | os.O_CLOEXEC)
        self.reports = os.open(stem.with_suffix(".out"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.future: Future[int] | None = None

    def tell(self, line: bytes) -> None:
        os.write(self._line, line)

    def exited(self) -> str | None:
        if self.future is None or not self.future.done():
            return None
        problem = self.future.exception()
        return "exit status 0" if problem is None else str(problem).splitlines()[0]

    def kill(self) -> None:
        try:
            os.kill(int(self._stem.with_suffix(".pid").read_text()), signal.SIGKILL)
        except (OSError, ValueError):
            return

    def close(self) -> None:
        os.close(self._line)
        os.close(self.reports)
