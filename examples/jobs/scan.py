"""scan.py JOB JOBS SEED CORES: one point of a parameter scan, written to ``lyapunov.json``.

The point is the job's parameter r of the logistic map x -> r x (1 - x), from 3.5 to 4.0; the result is the map's
Lyapunov exponent, averaged over 64 starting points that the job's seed gives. It is positive where the map is chaotic.
"""

from __future__ import annotations

import json
import math
import random
import sys
from multiprocessing import Pool
from pathlib import Path

STARTS = 64
STEPS = 5000


def exponent(point: tuple[float, float]) -> float:
    """Mean of log|f'(x)| along the orbit of one starting point."""
    r, x = point
    for _ in range(100):  # until it has forgotten where it started
        x = r * x * (1.0 - x)
    total = 0.0
    for _ in range(STEPS):
        x = r * x * (1.0 - x)
        total += math.log(max(abs(r * (1.0 - 2.0 * x)), 1e-300))
    return total / STEPS


def main(job: int, jobs: int, seed: int, cores: int) -> None:
    """Compute the job's point on its cores; the result does not depend on how many they are."""
    r = 3.5 + 0.5 * job / max(jobs - 1, 1)
    numbers = random.Random(seed)
    points = [(r, numbers.uniform(0.1, 0.9)) for _ in range(STARTS)]
    with Pool(cores) as pool:
        exponents = pool.map(exponent, points)
    result = {"job": job, "r": r, "lyapunov": math.fsum(exponents) / STARTS}
    Path("lyapunov.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(f"r = {r:.4f}: {result['lyapunov']:+.4f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
