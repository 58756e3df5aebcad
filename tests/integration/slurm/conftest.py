"""A Slurm cluster for all tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.support.slurm import slurm, slurm_cluster

__all__ = ["slurm", "slurm_cluster"]
