"""Events that sleep for a drawn cost, and a note of everything that is begun: what has no end after it was thrown away."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from hpcpanda.payload import RangeWork

JOB_SCRIPT = (
    'printf "%s %s %s\\n" $(date +%s.%N) $SLURM_JOB_ID $1 >> {notes}/job-$1; sleep {seconds}; '
    "date +%s.%N > {notes}/done-$1; echo $1 > out"
)
"""The script of a job that does the same; its number is its first argument."""


def generate(work: RangeWork) -> bytes:
    """Each event is its number in eight bytes, and takes ``event_s`` seconds in the mean: lognormal with ``spread``."""
    note = Path(str(work.settings["notes"])) / f"range-{os.getpid()}"
    with note.open("a") as file:
        file.write(f"{time.time():.3f} {os.environ['SLURM_JOB_ID']} {work.first}\n")
    mean, spread = float(work.settings["event_s"]), float(work.settings["spread"])
    drawn = [np.random.default_rng([work.seed, event]).standard_normal() for event in work.events]
    time.sleep(mean * float(np.exp(spread * np.array(drawn) - spread**2 / 2).sum()))
    return np.arange(work.first, work.last, dtype="<u8").tobytes()
