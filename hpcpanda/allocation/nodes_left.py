"""Ask the batch system how many nodes the allocation still has.

An allocation can go on when one of its nodes is lost (Slurm's ``--no-kill``), with the others. When Slurm has given the
node up it takes it out of the job and ends the steps that ran on it, so a pack that died of it can be told from others.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Final

PATIENCE_S: Final = 10.0
"""A batch system that has not answered after so long is taken for one that does not know."""


def question(executor: str, environment: Mapping[str, str] = os.environ) -> tuple[str, ...] | None:
    """The command that prints the number; None where the batch system of ``executor`` cannot be asked."""
    job = environment.get("SLURM_JOB_ID", "")
    if executor != "slurm" or not job.isdigit():
        return None
    return "squeue", "--noheader", f"--jobs={job}", "--format=%D"


class NodeCount:
    """A question that was asked.

    Raises:
        OSError: the command cannot be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Ask; the end of the command comes as a SIGCHLD."""
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._until = time.monotonic() + PATIENCE_S

    @property
    def over(self) -> bool:
        """Whether the answer is there, or is not waited for any longer."""
        return self._process.poll() is not None or time.monotonic() >= self._until

    def close(self) -> int | None:
        """End the question; gives the number of nodes, None when it is not known."""
        assert self._process.stdout is not None
        answered = self._process.poll() == 0
        self._process.kill()
        self._process.wait()
        with self._process.stdout as stdout:
            said = stdout.read(100).strip() if answered else b""
        return int(said) if said.isdigit() else None
