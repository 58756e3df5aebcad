"""A payload that reads ROOT files."""

from __future__ import annotations

import time

import h5py
import numpy as np
import uproot

from hpcpanda.payload import RangeWork


def read(work: RangeWork) -> dict[str, np.ndarray]:
    """The number of each event and what its file has of it; ``settings.event_s`` seconds of sleep an event."""
    time.sleep(len(work) * float(work.settings.get("event_s", 0.0)))
    parts = []
    for part in work.inputs:
        with uproot.open(part.path) as file:
            parts.append(file["t"]["x"].array(entry_start=part.first, entry_stop=part.last, library="np"))
    values = np.concatenate(parts)
    assert len(values) == len(work)
    return {"event": np.arange(work.first, work.last, dtype=np.int64), "x": values}


def generate_from(work: RangeWork) -> dict[str, np.ndarray]:
    """The columns of merged files."""
    columns: dict[str, list[np.ndarray]] = {"event": [], "x": []}
    for part in work.inputs:
        with h5py.File(part.path) as file:
            for name, values in columns.items():
                values.append(file[name][part.first : part.last])
    return {name: np.concatenate(values) for name, values in columns.items()}
