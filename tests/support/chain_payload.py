"""Payloads for tests of the whole chain: good ones, and one for each way of being bad."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcpanda.payload import RangeWork


def value_of(work: RangeWork) -> np.ndarray:
    """A number for each event that depends on the task's seed and the event only."""
    event = np.arange(work.first, work.last, dtype=np.uint64)
    return ((event * np.uint64(0x9E3779B97F4A7C15) + np.uint64(work.seed)) >> np.uint64(11)).astype("f8")


def generate(work: RangeWork) -> dict[str, np.ndarray]:
    """Two columns; ``settings.event_s`` seconds of sleep an event."""
    time.sleep(len(work) * float(work.settings.get("event_s", 0.0)))
    return {"event": np.arange(work.first, work.last, dtype=np.int64), "value": value_of(work)}


def text(work: RangeWork) -> bytes:
    """A line an event."""
    return b"".join(b"%d %.17g\n" % pair for pair in zip(work.events, value_of(work), strict=True))


def poisonous(work: RangeWork) -> dict[str, np.ndarray]:
    """Fails as soon as event ``settings.bad`` is in the range."""
    if int(work.settings["bad"]) in work.events:
        raise ValueError(f"cannot digest event {work.settings['bad']}")
    return generate(work)


def curable(work: RangeWork) -> dict[str, np.ndarray]:
    """Fails on event ``settings.bad`` until the file ``settings.cure`` is there."""
    if int(work.settings["bad"]) in work.events and not Path(str(work.settings["cure"])).exists():
        raise ValueError(f"cannot digest event {work.settings['bad']}")
    return generate(work)


def hungry(work: RangeWork) -> dict[str, np.ndarray]:
    """Holds ``settings.mb`` MiB for a second at event ``settings.bad``."""
    if int(work.settings["bad"]) in work.events:
        held = np.ones(int(work.settings["mb"]) << 17)
        time.sleep(1.0)
        del held
    return generate(work)


def deadly(work: RangeWork) -> dict[str, np.ndarray]:
    """Ends its worker as a bug in a library does, at event ``settings.bad``."""
    if int(work.settings["bad"]) in work.events:
        os.kill(os.getpid(), signal.SIGSEGV)
    return generate(work)


def hanging(work: RangeWork) -> dict[str, np.ndarray]:
    """Never comes back from event ``settings.bad``."""
    if int(work.settings["bad"]) in work.events:
        time.sleep(3600)
    return generate(work)


def not_a_number(work: RangeWork) -> dict[str, np.ndarray]:
    """NaN, infinity and a NaN with a payload of its own, by turns."""
    bits = np.array([0x7FF8000000000000, 0x7FF0000000000000, 0x7FF800000000BEEF], dtype=np.uint64)
    return {"value": bits[np.arange(work.first, work.last) % 3].view("f8")}


def changing_dtype(work: RangeWork) -> dict[str, np.ndarray]:
    """Single precision up to event ``settings.bad``, double precision from there."""
    kind = "f8" if work.first >= int(work.settings["bad"]) else "f4"
    return {"value": value_of(work).astype(kind)}


def unequal_lengths(work: RangeWork) -> dict[str, np.ndarray]:
    """Two columns of different length."""
    values = value_of(work)
    return {"value": values, "other": np.append(values, 0.0)}


def exits(settings: Mapping[str, Any]) -> None:
    """A set-up that leaves the process."""
    sys.stderr.write("the licence server does not answer\n")
    sys.exit(4)


def dies(settings: Mapping[str, Any]) -> None:
    """A set-up that takes the process with it."""
    os.kill(os.getpid(), signal.SIGSEGV)


def cut_dependent(work: RangeWork) -> dict[str, np.ndarray]:
    """The mistake of seeding once a range."""
    return {"value": np.random.default_rng(work.first).random(len(work))}


def with_brackets(work: RangeWork) -> dict[str, np.ndarray]:
    """An error text that looks like markup of terminals."""
    raise ValueError("no such [bold]column[/bold] in [/tree] :cat:")
