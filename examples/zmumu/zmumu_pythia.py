"""Z/gamma* -> mu mu in proton-proton collisions, whole events from Pythia 8.

Nothing is switched off: parton showers, multiparton interactions, beam remnants, hadronisation and
decays are all as Pythia has them by default. Multiparton interactions are most of the time an
event takes; without them (``PartonLevel:MPI = off``) the dimuon mass looks the same, the recoil and the
tracks do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pythia8mc

from hpcpanda.payload import Items, RangeWork, pythia_seed

ATTEMPTS = 10
MUON_COLUMNS = ("muon_px", "muon_py", "muon_pz", "muon_e")
TRACK_COLUMNS = ("track_px", "track_py", "track_pz")


def initialise(settings: Mapping[str, Any]) -> Any:
    """A Pythia ready for events. Runs once a node; workers are forked with it in memory."""
    pythia = pythia8mc.Pythia("", False)  # noqa: FBT003 - no banner
    for line in (
        "Print:quiet = on",
        f"Beams:eCM = {settings['energy_gev']}",
        "WeakSingleBoson:ffbar2gmZ = on",
        f"PhaseSpace:mHatMin = {settings['mass_min_gev']}",
        f"PhaseSpace:mHatMax = {settings['mass_max_gev']}",
        "23:onMode = off",
        "23:onIfAny = 13",
        # The initialisation's own randomness must be the same on every node.
        "Random:setSeed = on",
        "Random:seed = 1",
    ):
        if not pythia.readString(line):
            raise ValueError(f"Pythia does not accept {line!r}")
    if not pythia.init():
        raise RuntimeError("Pythia cannot be initialised with these settings")
    return pythia


def generate(work: RangeWork) -> dict[str, Any]:
    """The events of a range, each from its own seed, so that it is the same in whatever range it lies."""
    pythia = work.state
    muons, tracks = Particles(), Particles()
    masses = []
    for event in work.events:
        pythia.rndm.init(pythia_seed(work.seed, event))
        next_event(pythia, event)
        masses.append(select(pythia.event, work.settings, muons, tracks))
    muon_p, track_p = muons.momenta(), tracks.momenta()
    return {
        "dimuon_mass": np.array(masses, dtype="f4"),
        "n_muons": np.array(muons.counts, dtype="i2"),
        "n_tracks": np.array(tracks.counts, dtype="i2"),
        "muon_charge": Items(np.array(muons.charges, dtype="i1"), counts="n_muons"),
        "track_charge": Items(np.array(tracks.charges, dtype="i1"), counts="n_tracks"),
        **{name: Items(muon_p[:, i], counts="n_muons") for i, name in enumerate(MUON_COLUMNS)},
        **{name: Items(track_p[:, i], counts="n_tracks") for i, name in enumerate(TRACK_COLUMNS)},
    }


def next_event(pythia: Any, event: int) -> None:
    """Generate one event. Pythia gives up on a few in a million: then its random stream goes on."""
    for _ in range(ATTEMPTS):
        if pythia.next():
            return
    raise RuntimeError(f"Pythia failed {ATTEMPTS} times in a row on event {event}")


class Particles:
    """Momenta and charges of the selected particles of a range, and how many each event has."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.charges: list[int] = []
        self._momenta: list[tuple[float, float, float, float]] = []

    def add(self, particles: Iterable[Any]) -> None:
        """Add an event's particles."""
        before = len(self.charges)
        for p in particles:
            self.charges.append(int(p.charge()))
            self._momenta.append((p.px(), p.py(), p.pz(), p.e()))
        self.counts.append(len(self.charges) - before)

    def momenta(self) -> np.ndarray:
        """px, py, pz, e in GeV, a row a particle."""
        return np.array(self._momenta, dtype="f4").reshape(-1, 4)


def select(event: Any, settings: Mapping[str, Any], muons: Particles, tracks: Particles) -> float:
    """Keep all final muons and the charged particles a tracker would see; the event's dimuon mass."""
    pt_min, eta_max = settings["track_pt_min_gev"], settings["track_eta_max"]
    charged = [p for p in event if p.isFinal() and p.isCharged()]
    found = sorted((p for p in charged if p.idAbs() == 13), key=lambda p: -p.pT())
    muons.add(found)
    tracks.add(p for p in charged if p.pT() > pt_min and abs(p.eta()) < eta_max)
    return dimuon_mass(found)


def dimuon_mass(muons: list[Any]) -> float:
    """Invariant mass in GeV of the hardest negative with the hardest positive muon; 0 without such a pair."""
    pair = [next((m for m in muons if m.id() == sign * 13), None) for sign in (1, -1)]
    if None in pair:
        return 0.0
    e, px, py, pz = (sum(getattr(m, c)() for m in pair) for c in ("e", "px", "py", "pz"))
    return math.sqrt(max(0.0, e * e - px * px - py * py - pz * pz))
