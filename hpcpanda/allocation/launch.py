"""Start a pack's MPI program, and keep a line to its rank 0: the port, and the site's launcher called directly."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from hpcpanda.allocation.forkserver import die_with_parent
from hpcpanda.allocation.launch_words import find_launcher, job_launcher, with_counts
from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import LauncherSettings

MPI_PREFIX: Final = "HPCPANDA_MPI_PREFIX"
"""Variable of the program of an MPI job: the words in front of the user's command, quoted for a shell."""


class RunningPack(Protocol):
    """A pack's MPI program that was started."""

    reports: int
    """Descriptor on which rank 0's lines arrive; at its end the program has ended or is about to."""

    def tell(self, line: bytes) -> None:
        """Write a line to rank 0; raises BrokenPipeError when it is gone."""
        ...

    def exited(self) -> str | None:
        """How the program ended, in words; None while it runs."""
        ...

    def kill(self) -> None:
        """End the program at once."""
        ...

    def close(self) -> None:
        """Close the line."""
        ...


class PackLauncher(Protocol):
    """Starts packs."""

    def start(self, module: str, run_file: Path, *, ranks: int, log: Path) -> RunningPack:
        """Start ``python -m module run_file`` on ``ranks`` nodes, its stderr into ``log``.

        Raises:
            SchedulerFailed: the launcher cannot be started.
        """
        ...

    def start_mpi_job(
        self, module: str, run_file: Path, *, nodes: int, ranks_per_node: int, log: Path
    ) -> RunningPack:
        """Start ``python -m module run_file`` once, beside the head; ``MPI_PREFIX`` tells it how to start MPI ranks.

        Raises:
            SchedulerFailed: it cannot be started.
        """
        ...

    def close(self) -> None:
        """Nothing will be started any more."""
        ...


def launch_command(settings: LauncherSettings, ranks: int) -> list[str]:
    """The words in front of a pack's program.

    Raises:
        SchedulerFailed: the launcher is neither beside the Python interpreter nor on PATH.
    """
    return find_launcher(with_counts(settings.command, nodes=ranks, ranks_per_node=1))


class DirectLauncher:
    """Calls the site's launcher (mpiexec, srun, ...); rank 0's stdin and stdout come through it."""

    def __init__(self, settings: LauncherSettings) -> None:
        self._settings = settings

    def start(self, module: str, run_file: Path, *, ranks: int, log: Path) -> RunningPack:
        """Start a pack; see :class:`PackLauncher`."""
        launcher = launch_command(self._settings, ranks)
        return _started([*launcher, sys.executable, "-m", module, str(run_file)], log)

    def start_mpi_job(
        self, module: str, run_file: Path, *, nodes: int, ranks_per_node: int, log: Path
    ) -> RunningPack:
        """Start an MPI job; see :class:`PackLauncher`."""
        words = with_counts(job_launcher(self._settings), nodes=nodes, ranks_per_node=ranks_per_node)
        environment = os.environ | {MPI_PREFIX: shlex.join(find_launcher(words))}
        return _started([sys.executable, "-m", module, str(run_file)], log, environment)

    def close(self) -> None:
        """Nothing is held."""


def start_beside_head(module: str, run_file: Path, *, log: Path) -> RunningPack:
    """Start ``python -m module run_file`` on the node of the head, which others have.

    Raises:
        SchedulerFailed: it cannot be started.
    """
    return _started([sys.executable, "-m", module, str(run_file)], log)


def _started(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> RunningPack:
    with log.open("ab") as stderr:
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - the head has one thread
            )
        except OSError as problem:
            raise SchedulerFailed(f"{command[0]} cannot be started: {problem}") from problem
    return _DirectPack(process)


class _DirectPack:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout
        self.reports = process.stdout.fileno()
        os.set_blocking(self.reports, False)

    def tell(self, line: bytes) -> None:
        self._stdin.write(line)

    def exited(self) -> str | None:
        code = self._process.poll()
        if code is None:
            return None
        self.kill()  # what the program may have left behind, and would keep the line open
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def close(self) -> None:
        self._stdin.close()
        self._stdout.close()
