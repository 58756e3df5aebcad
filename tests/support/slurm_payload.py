"""A payload that cannot be hurried while a file exists."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from hpcpanda.payload import RangeWork


def held(file: Path) -> Path:
    """Is there as soon as the range has begun that waits for ``file``."""
    return file.with_name(f"{file.name}-held")


def hold(work: RangeWork) -> bytes:
    """Each event is its number in eight bytes; the range with event ``at`` waits until ``file`` is gone, and says so."""
    file = Path(str(work.settings["file"]))
    if work.first <= int(work.settings["at"]) < work.last:
        held(file).touch()
        while file.exists():
            time.sleep(0.05)
    return np.arange(work.first, work.last, dtype="<u8").tobytes()
