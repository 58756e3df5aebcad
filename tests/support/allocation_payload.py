"""Payloads for tests of the allocation: every event is its own number in eight bytes; some events misbehave."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from hpcpanda.payload import RangeWork


def run(work: RangeWork) -> Any:
    """``event_ms`` of sleep an event; on event ``bad`` do what ``how`` says."""
    settings = work.settings
    if wait := float(settings.get("event_ms", 0)) * (work.last - work.first):
        time.sleep(wait / 1000)
    good = np.arange(work.first, work.last, dtype="<u8")
    bad = int(settings.get("bad", -1))
    if work.first <= bad < work.last:
        return _misbehave(str(settings["how"]), good)
    return {"event": good} if settings.get("columns") else good.tobytes()


def _misbehave(how: str, good: np.ndarray) -> Any:
    match how:
        case "raise":
            raise ValueError("this event is bad")
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "leave":
            sys.exit(3)
        case "vanish":
            os._exit(4)
        case "hang":
            signal.pause()
        case "leak":
            held = []
            while True:
                held.append(bytearray(os.urandom(1 << 12) * (1 << 10)))
                time.sleep(0.02)
    return {"event": good[1:] if how == "lengths" else good.astype("f4")}


def numbers(work: RangeWork) -> dict[str, np.ndarray]:
    """One column, not a number everywhere."""
    return {"value": np.full(work.last - work.first, np.nan)}


def flood(work: RangeWork) -> bytes:
    """Print a mebibyte an event."""
    line = b"x" * 1023 + b"\n"
    for _ in range((work.last - work.first) * 1024):
        os.write(1, line)
    return np.arange(work.first, work.last, dtype="<u8").tobytes()


def busy(work: RangeWork) -> bytes:
    """Ten milliseconds of this thread's own processor time an event."""
    until = time.thread_time() + 0.01 * (work.last - work.first)
    while time.thread_time() < until:
        pass
    return b""


def fat(work: RangeWork) -> bytes:
    """64 KiB an event."""
    return b"x" * ((work.last - work.first) << 16)


def nothing(work: RangeWork) -> bytes:
    """No work at all."""
    return b""


def setup_leaves(settings: dict[str, Any]) -> None:
    """A set-up that ends its process in an orderly way."""
    sys.exit(7)


def setup_vanishes(settings: dict[str, Any]) -> None:
    """A set-up that ends its process at once, as a crash would."""
    print("about to crash", flush=True)
    os._exit(9)


def setup_never_ends(settings: dict[str, Any]) -> None:
    """A set-up that hangs."""
    signal.pause()


def setup_once(settings: dict[str, Any]) -> None:
    """Leave a trace of each set-up."""
    with Path(str(settings["trace"])).open("a") as file:
        file.write(f"{os.getpid()}\n")
