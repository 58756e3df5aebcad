"""Invariant mass of the two muons of events that have exactly two, of opposite charge."""

from __future__ import annotations

from typing import Any

import numpy as np
import uproot

from hpcpanda.payload import InputSlice, RangeWork

BRANCHES = ("Muon_pt", "Muon_eta", "Muon_phi", "Muon_mass", "Muon_charge")

_trees: dict[str, Any] = {}


def tree_of(path: str) -> Any:
    """The file's tree, opened once a worker: opening costs more than reading a range."""
    if path not in _trees:
        _trees[path] = uproot.open(path)["Events"]
    return _trees[path]


def analyse(work: RangeWork) -> dict[str, Any]:
    """A mass in GeV for each event of the range, 0 where there is no such pair."""
    masses = [masses_of(part) for part in work.inputs]
    return {"dimuon_mass": np.concatenate(masses)}


def masses_of(part: InputSlice) -> np.ndarray:
    """The masses of the entries of one file."""
    muons = tree_of(part.path).arrays(BRANCHES, entry_start=part.first, entry_stop=part.last)
    two = np.asarray([len(q) == 2 and q[0] != q[1] for q in muons["Muon_charge"].tolist()], dtype=bool)
    pt, eta, phi, m = (muons[name][two].to_numpy().astype("f8") for name in BRANCHES[:4])
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    e = np.sqrt(px**2 + py**2 + pz**2 + m**2)
    squared = e.sum(axis=1) ** 2 - sum(p.sum(axis=1) ** 2 for p in (px, py, pz))
    masses = np.zeros(len(two), dtype="f4")
    masses[two] = np.sqrt(np.maximum(squared, 0.0))
    return masses
