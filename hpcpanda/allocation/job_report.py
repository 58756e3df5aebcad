"""What is reported of a job's run: counts of the kernel, and runs that never began."""

from __future__ import annotations

import resource
import socket
from dataclasses import dataclass, field
from typing import Final

from hpcpanda.allocation.job_run import JobRun
from hpcpanda.events.bundle import JobReport

_BLOCK: Final = 512
"""Unit of ``ru_inblock`` and ``ru_oublock`` on Linux, bytes (getrusage(2))."""
_MIB: Final = 1 << 20


def _own_rss_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(slots=True)
class Usage:
    """What the kernel has counted for processes of a job that have ended; made when its program has just been started."""

    cpu_s: float = 0.0
    _read_blocks: int = 0
    _written_blocks: int = 0
    _max_rss_kb: int = 0
    _own_rss_kb: int = field(default_factory=_own_rss_kb)

    def add(self, used: resource.struct_rusage) -> None:
        """Count a process, and those below it that it has waited for."""
        self.cpu_s += used.ru_utime + used.ru_stime
        self._max_rss_kb = max(self._max_rss_kb, used.ru_maxrss)
        self._read_blocks += used.ru_inblock
        self._written_blocks += used.ru_oublock

    @property
    def max_rss_mb(self) -> float:
        """Highest resident memory of one process, MiB; 0 when it is less than the runner's own.

        A program is loaded in place of a copy of its runner, whose memory the kernel leaves in its account.
        """
        return self._max_rss_kb / 1024 if self._max_rss_kb > self._own_rss_kb else 0.0

    @property
    def read_mb(self) -> float:
        """Read from storage, MiB."""
        return self._read_blocks * _BLOCK / _MIB

    @property
    def written_mb(self) -> float:
        """Written for storage, MiB."""
        return self._written_blocks * _BLOCK / _MIB


def never_ran(run: JobRun, *, started: float, error: str) -> JobReport:
    """The report of a run whose program was not started, or of which nothing is known."""
    return JobReport(
        job=run.job,
        attempt=run.attempt,
        host=socket.gethostname(),
        exit_status=None,
        started=started,
        wall_s=0.0,
        cpu_s=0.0,
        max_rss_mb=0.0,
        error=error,
    )
