"""A cheap event whose bytes depend on its number and the task's seed only."""

from __future__ import annotations

import time

import numpy as np

from hpcpanda.payload import RangeWork


def generate(work: RangeWork) -> dict[str, np.ndarray]:
    """Two columns of mixed bits; ``settings.event_us`` microseconds of busy time an event."""
    event = np.arange(work.first, work.last, dtype=np.uint64)
    mixed = (event * np.uint64(0x9E3779B97F4A7C15) + np.uint64(work.seed)) ^ (event >> np.uint64(7))
    until = time.perf_counter() + len(event) * float(work.settings.get("event_us", 0.0)) * 1e-6
    while time.perf_counter() < until:
        pass
    return {"event": event, "value": mixed.astype("f8") / 2.0**64}
