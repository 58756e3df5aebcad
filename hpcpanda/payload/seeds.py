"""Randomness that depends on the task seed and the event number only, never on how ranges were cut."""

from __future__ import annotations

import numpy as np

PYTHIA_SEEDS = 900_000_000
"""Pythia 8 accepts the seeds 1..900 000 000; 0 would mean the clock."""

_STRIDE = 1_000_003


def pythia_seed(task_seed: int, event: int) -> int:
    """The seed for ``pythia.rndm.init`` at one event, 1..900 000 000.

    An offset, not a hash: any 900 million successive events of a task have different seeds, where a
    hash into so small a space would collide within thousands.
    """
    return 1 + (task_seed * _STRIDE + event) % PYTHIA_SEEDS


def philox(task_seed: int, event: int) -> np.random.Generator:
    """NumPy's counter-based generator for one event: key is the task seed, counter the event number.

    Streams of two events never overlap: each has 2**192 blocks of its own. Costs some microseconds;
    make one an event, not one a random number.
    """
    return np.random.Generator(np.random.Philox(key=task_seed, counter=[0, 0, 0, event]))
