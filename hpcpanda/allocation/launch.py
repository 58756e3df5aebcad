"""Start a pack's MPI program, and keep a line to its rank 0: the port, and the site's launcher called directly."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from hpcpanda.allocation.forkserver import die_with_parent
from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.domain.site import LauncherSettings


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

    def close(self) -> None:
        """Nothing will be started any more."""
        ...


def launch_command(settings: LauncherSettings, ranks: int) -> list[str]:
    """The words in front of the program.

    Raises:
        SchedulerFailed: the launcher is neither beside the Python interpreter nor on PATH.
    """
    first, *rest = (word.replace("{ranks}", str(ranks)) for word in settings.command)
    beside = Path(sys.executable).parent / first
    found = str(beside) if "/" not in first and beside.exists() else shutil.which(first)
    if found is None:
        raise SchedulerFailed(
            f"launcher {first!r} is neither beside {sys.executable} nor on PATH; check launcher.command of the site file"
        )
    return [found, *rest]


class DirectLauncher:
    """Calls the site's launcher (mpiexec, srun, ...); rank 0's stdin and stdout come through it."""

    def __init__(self, settings: LauncherSettings) -> None:
        self._settings = settings

    def start(self, module: str, run_file: Path, *, ranks: int, log: Path) -> RunningPack:
        """Start a pack; see :class:`PackLauncher`."""
        command = [*launch_command(self._settings, ranks), sys.executable, "-m", module, str(run_file)]
        with log.open("ab") as stderr:
            try:
                process = subprocess.Popen(
                    command,
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

    def close(self) -> None:
        """Nothing is held."""


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
