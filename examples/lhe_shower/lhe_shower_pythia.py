"""Parton shower, multiparton interactions and hadronisation on top of hard processes from an LHE file.

No jet matching is applied: for a multi-jet sample that needs it (MLM, CKKW-L), add the matching hook of
your choice; events it vetoes are then recorded with ``accepted = 0``.

The file is opened in the workers, never in a set-up: processes forked with an open file share its
position and would take events from each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pythia8mc

from hpcpanda.payload import InputSlice, Items, RangeWork, pythia_seed

COLUMNS = ("px", "py", "pz", "e")


class Reader:
    """A Pythia that reads one LHE file from front to back and knows the next entry."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.entry = 0
        self.pythia = pythia8mc.Pythia("", False)  # noqa: FBT003 - no banner
        for line in (
            "Print:quiet = on",
            "SLHA:verbose = 0",
            "Beams:frameType = 4",
            f"Beams:LHEF = {path}",
            "Random:setSeed = on",
            "Random:seed = 1",
        ):
            if not self.pythia.readString(line):
                raise ValueError(f"Pythia does not accept {line!r}")
        if not self.pythia.init():
            raise RuntimeError(f"Pythia cannot read {path}")

    def skip_to(self, entry: int) -> None:
        """Go forward to an entry."""
        if entry > self.entry and not self.pythia.LHAeventSkip(entry - self.entry):
            raise RuntimeError(f"{self.path} ends before entry {entry}")
        self.entry = entry

    def next(self) -> bool:
        """Shower the next entry. It is used up even when this fails, so it must never be tried again."""
        self.entry += 1
        accepted = bool(self.pythia.next())
        if not accepted and self.pythia.infoPython().atEndOfFile():
            raise RuntimeError(f"{self.path} ends before entry {self.entry}")
        return accepted


_reader: Reader | None = None


def reader_at(part: InputSlice) -> Reader:
    """This worker's reader, in front of the first entry of ``part``; opened anew to go backwards."""
    global _reader  # noqa: PLW0603 - a worker keeps its reader from range to range
    if _reader is None or _reader.path != part.path or _reader.entry > part.first:
        _reader = Reader(part.path)
    _reader.skip_to(part.first)
    return _reader


def shower(work: RangeWork) -> dict[str, Any]:
    """The final charged particles of every event of the range."""
    accepted: list[bool] = []
    counts: list[int] = []
    ids: list[int] = []
    momenta: list[tuple[float, float, float, float]] = []
    for part in work.inputs:
        reader = reader_at(part)
        pythia = reader.pythia
        for event in part.events:
            pythia.rndm.init(pythia_seed(work.seed, event))
            accepted.append(reader.next())
            before = len(ids)
            if accepted[-1]:
                for p in pythia.event:
                    if p.isFinal() and p.isCharged():
                        ids.append(p.id())
                        momenta.append((p.px(), p.py(), p.pz(), p.e()))
            counts.append(len(ids) - before)
    p4 = np.array(momenta, dtype="f4").reshape(-1, 4)
    return {
        "accepted": np.array(accepted, dtype="u1"),
        "n_charged": np.array(counts, dtype="i4"),
        "charged_id": Items(np.array(ids, dtype="i4"), counts="n_charged"),
        **{f"charged_{c}": Items(p4[:, i], counts="n_charged") for i, c in enumerate(COLUMNS)},
    }
