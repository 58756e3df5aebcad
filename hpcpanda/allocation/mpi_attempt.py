"""One run of an MPI job's command under the site's launcher."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcpanda.allocation.job_words import JobWords, lay_out
from hpcpanda.domain.errors import SchedulerFailed
from hpcpanda.events.bundle import JobReport
from hpcpanda.payload.forms.failure import clip, ending

STDOUT: Final = "stdout.txt"
STDERR: Final = "stderr.txt"
_TAIL_BYTES: Final = 1000
_BEGUN: Final = ".begun"
_SUCCEEDED: Final = ".succeeded"
_FAILED: Final = ".failed"
_RANK: Final = """
rank=${PMI_RANK:-${PMIX_RANK:-${SLURM_PROCID:-0}}}
told=
trap 'told=1' TERM
[ $rank != 0 ] || : >"$0/.begun"
"$@"
code=$?
if [ $code = 0 ]; then [ $rank != 0 ] || : >"$0/.succeeded"
else sleep 1; [ $told ] || : >"$0/.failed"; fi
exit $code
"""
"""Stands around each rank's command, for launchers do not tell well what has happened. Rank 0 leaves a file before its
command, and one when it has succeeded: srun has been seen to end with status 0 while its step was being killed. A rank
whose command fails leaves a file unless it was told to end before, or at the same time: then others are at fault."""
_ABORT: Final = re.compile(rb"(?<!step )abort", re.IGNORECASE)
"""MPI's own word for a rank that ends all others, whose files may not be left any more."""
_OF_SIGNALS: Final = (signal.SIGTERM, signal.SIGKILL)
"""Hydra's exit status for ranks that these have ended; others add 128."""
_NODE_LOST: Final = b"error: Node failure on "
"""Of srun."""
_GUARD: Final = 'trap "" TERM INT HUP; read -r _ && exit 0; kill -TERM "$0"; sleep 3; kill -KILL "$0"'
"""Ends a launcher whose starter is gone: ranks that ignore SIGTERM would keep it for ever. A line says that all is over."""
_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that there is an orderly end: prctl(2), PR_SET_PDEATHSIG."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Attempt:
    """The command, started in its work folder.

    Raises:
        PayloadFailed: an input is missing.
        SchedulerFailed: the launcher does not start.
        OSError: the work folder cannot be written.
    """

    def __init__(self, words: JobWords, launcher: list[str], folder: Path, *, job: int, number: int) -> None:
        """Start ``launcher`` with the command of ``words``, for the ``number``-th attempt at ``job``."""
        self._folder = folder
        self._words = words
        self._job = job
        self._number = number
        self._used = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._started = time.time()
        self._clock = time.monotonic()
        self.begun = False
        """Rank 0 runs: the launcher may have waited for nodes."""
        self._ended: float | None = None
        told = lay_out(words, folder)
        for name in words.outputs:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        command = [*launcher, "/bin/sh", "-c", _RANK, str(folder), *words.command]
        self._process = self._start(command, {**os.environ, **told, **words.environment})
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _start(self, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with (self._folder / STDOUT).open("wb") as out, (self._folder / STDERR).open("wb") as err:
            try:
                return subprocess.Popen(
                    command,
                    env=environment,
                    cwd=self._folder,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,  # whoever kills this process's group leaves the launcher to end its ranks
                    preexec_fn=end_with_parent,  # noqa: PLW1509 - there is one thread
                )
            except (OSError, ValueError, subprocess.SubprocessError) as problem:
                raise SchedulerFailed(f"launcher {command[0]} cannot be started: {problem}") from problem

    # ---- its life ----

    def ended(self) -> bool:
        """Whether the launcher has ended."""
        over = self._process.poll() is not None
        if not self.begun and (self._folder / _BEGUN).exists():
            self.begun = True
            if not over:
                self._started, self._clock = time.time(), time.monotonic()
        if not over:
            return False
        if self._ended is None:
            self._ended = time.monotonic()
            self._guard.communicate(b"over\n")
        return True

    @property
    def wall_s(self) -> float:
        """Seconds since the begin, until the end."""
        return (self._ended if self._ended is not None else time.monotonic()) - self._clock

    def tell(self) -> None:
        """Tell the launcher, and it the ranks, to end."""
        self._process.terminate()

    def kill(self) -> None:
        """End the launcher, and what it has started on this node, at once."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    # ---- what came of it ----

    @property
    def is_its_own_doing(self) -> bool:
        """Whether it has ended by itself, well or badly, and not for its launcher, a lost node, or a signal to all."""
        code = self._process.returncode
        if code == 0:
            return (self._folder / _SUCCEEDED).exists()
        said = _tail(self._folder / STDERR, 1 << 16)
        if _NODE_LOST in said or not self.begun:
            return False
        if (self._folder / _FAILED).exists() or _ABORT.search(said) is not None:
            return True
        return 0 < code < 128 and code not in _OF_SIGNALS

    def failure(self, disk_mb: int) -> str | None:
        """Why it failed, for its user; None when it succeeded."""
        code = self._process.returncode
        if code != 0:
            said = _tail(self._folder / STDERR, _TAIL_BYTES).decode(errors="replace")
            return clip(f"{ending(code)}; the last of its stderr: {said.strip() or 'nothing'}")
        for name in self._words.outputs:
            try:
                regular = stat.S_ISREG((self._folder / name).stat().st_mode)
            except OSError:
                regular = False
            if not regular:
                return f"payload.outputs: it did not leave a file {name!r}"
        used = sum(_size(Path(folder) / name) for folder, _, names in os.walk(self._folder) for name in names)
        if used > disk_mb << 20:
            return f"it left {used >> 20} MiB in its work folder; job.disk_mb is {disk_mb}"
        return None

    def report(self, error: str | None) -> JobReport:
        """What the run was like."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        code = self._process.returncode
        return JobReport(
            job=self._job,
            attempt=self._number,
            host=socket.gethostname(),
            exit_status=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            started=self._started,
            wall_s=self.wall_s,
            cpu_s=used.ru_utime + used.ru_stime - self._used.ru_utime - self._used.ru_stime,
            max_rss_mb=used.ru_maxrss / 1024,
            error=error,
            stdout_tail=clip(_tail(self._folder / STDOUT, _TAIL_BYTES).decode(errors="replace")),
            stderr_tail=clip(_tail(self._folder / STDERR, _TAIL_BYTES).decode(errors="replace")),
        )


def _size(path: Path) -> int:
    try:
        found = path.lstat()
    except OSError:
        return 0
    return found.st_size


def _tail(path: Path, size: int) -> bytes:
    """The last bytes of a file; nothing when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size)
    except OSError:
        return b""
