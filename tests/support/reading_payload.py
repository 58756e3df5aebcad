"""Payloads of two tasks, one of which reads what the other writes."""

from __future__ import annotations

import time
from pathlib import Path

import h5py
import numpy as np

from hpcpanda.payload import RangeWork


def gated(work: RangeWork) -> dict[str, np.ndarray]:
    """Two columns; events from ``settings.gate_at`` on are not made before the file ``settings.gate`` is there."""
    while work.last > int(work.settings["gate_at"]) and not Path(str(work.settings["gate"])).exists():
        time.sleep(0.05)
    events = np.arange(work.first, work.last, dtype=np.int64)
    return {"event": events, "value": events * 0.5 + work.seed}


def halve(work: RangeWork) -> dict[str, np.ndarray]:
    """Half of each value, beside the numbers of the event here and in the task that wrote it."""
    events, values = [], []
    for part in work.inputs:
        with h5py.File(part.path) as file:
            events.append(file["event"][part.first : part.last])
            values.append(file["value"][part.first : part.last] / 2)
    return {
        "event": np.arange(work.first, work.last, dtype=np.int64),
        "origin": np.concatenate(events),
        "half": np.concatenate(values),
    }
