"""Prediction: what it costs to learn and to ask, how large the state is, and how promises of walltimes are kept.

``python -m tests.benchmarks.bench_prediction`` prints three tables in about half a minute. The second, over draws with
fixed seeds, tells for a promised risk the share of later jobs that exceed the predicted walltime, the share of draws for
which the promise is kept, and the prediction over the true quantile. The third does the same for the run times of a real
machine's jobs in their order, when the trace folder is there: each job is held against what was promised before it.
"""

from __future__ import annotations

import csv
import gzip
import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np

from hpcpanda.prediction.codec import decode, encode
from hpcpanda.prediction.knowledge import Knowledge
from hpcpanda.prediction.observations import Observations, scouts
from hpcpanda.prediction.tasks import TaskWords

THETA = Path(__file__).parents[3] / "shared" / "traces" / "theta-2023.csv.gz"
DRAWS = 300
_NORMAL = NormalDist()


def timed(what: str, calls: int, action: Callable[[], object]) -> None:
    """Print the time of a call."""
    began = time.perf_counter()
    for _ in range(calls):
        action()
    took = (time.perf_counter() - began) / calls
    print(f"{what:60s} {took * 1e6:12.1f} us")


def filled(tasks: int, jobs: int) -> Knowledge:
    """A site that has seen so many tasks of so many jobs, in many shapes of allocations."""
    rng = np.random.default_rng(1)
    known = Knowledge.fresh(0.0)
    for task in range(tasks):
        known.meet(task, TaskWords(walltime_s=40_000.0, memory_mb=4000.0), 0.0)
        known.saw_jobs(task, rng.lognormal(rng.uniform(2, 9), 0.7, jobs), 0.0)
        known.saw_events(task, np.full(jobs, 50.0), rng.lognormal(3, 1, jobs), 0.0)
        for memory in rng.lognormal(6, 0.3, 100):
            known.saw_memory(task, float(memory), 0.0)
    for _ in range(5000):
        nodes, walltime = 2 ** rng.integers(0, 8), 900 * 2 ** rng.integers(0, 6)
        known.saw_allocation(int(nodes), float(walltime), float(rng.lognormal(6, 2)), 0.0)
    return known


def costs() -> None:
    """Of learning, asking and keeping."""
    known = filled(20, 5000)
    jobs = np.random.default_rng(2).lognormal(5, 1, 1000)
    at = [0.0]

    def held() -> None:
        known.saw_held(16, at[0], at[0] + 10.0)
        at[0] += 10.0

    timed("one job", 5000, lambda: known.saw_jobs(1, [100.0], 0.0))
    timed("a thousand jobs at once", 200, lambda: known.saw_jobs(2, jobs, 0.0))
    timed("a thousand ranges at once", 200, lambda: known.saw_events(2, np.full(1000, 9.0), jobs, 0.0))
    timed("nodes held for 10 s", 5000, held)
    timed("job_seconds", 500, lambda: known.job_seconds(3, 0.0))
    timed("event_seconds", 500, lambda: known.event_seconds(3, 0.0))
    timed("reservations", 20, lambda: known.reservations(3))
    timed("forecast, 48 shapes seen", 20, lambda: known.forecast(0.0))
    for tasks in (1, 20, 200):
        known = filled(tasks, 2000)
        text = encode(known)
        print(f"{tasks} tasks of 2000 jobs and ranges: {len(text) / 1024:.0f} KiB as text")
        timed("  encode", 3, lambda: encode(known))  # noqa: B023
        timed("  decode", 3, lambda: decode(text))  # noqa: B023


def _two_kinds(rng: np.random.Generator, n: int) -> np.ndarray:
    slow = rng.random(n) < 0.2
    return np.maximum(np.where(slow, rng.normal(1000, 50, n), rng.normal(100, 5, n)), 1.0)


KINDS: dict[str, tuple[Callable[[np.random.Generator, int], np.ndarray], Callable[[float], float]]] = {
    "exponential": (lambda r, n: r.exponential(100.0, n), lambda x: math.exp(-x / 100)),
    "lognormal, sigma 1": (lambda r, n: r.lognormal(4, 1, n), lambda x: 1 - _NORMAL.cdf(math.log(x) - 4)),
    "bimodal, 20% ten times slower": (
        _two_kinds,
        lambda x: 0.2 * (1 - _NORMAL.cdf((x - 1000) / 50)) + 0.8 * (1 - _NORMAL.cdf((x - 100) / 5)),
    ),
    "Pareto, index 1.2": (lambda r, n: 100 * (1 + r.pareto(1.2, n)), lambda x: min(1.0, (x / 100) ** -1.2)),
}


def quantile(above: Callable[[float], float], risk: float) -> float:
    """The value that the share ``risk`` exceeds, by bisection."""
    low, high = 1.0, 1e12
    while high / low > 1.00001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if above(middle) > risk else (low, middle)
    return high


def coverage(risk: float) -> None:
    """Of bounds made of samples alone, without a limit of the user's."""
    print(
        f"\npromised risk {risk:.0%}: exceeded by, kept in so many draws, median of prediction / true quantile"
    )
    for name, (draw, above) in KINDS.items():
        true = quantile(above, risk)
        for samples in sorted({scouts(risk), 10, 22, 100, 1000, 3000}):
            rng = np.random.default_rng([samples, len(name)])
            bounds = []
            for _ in range(DRAWS):
                seen = Observations()
                seen.ended.add_all(draw(rng, samples), np.ones(samples))
                bounds.append(seen.bound(risk, 1.0))
            found = [bound for bound in bounds if bound is not None]
            if not found:
                continue
            shares = np.array([above(b) for b in found])
            print(
                f"  {name:30s} n={samples:5d}  {shares.mean():6.1%}  {(shares <= risk).mean():5.0%}"
                f"  {np.median(found) / true:6.2f}"
            )


def real() -> None:
    """Run times of Theta's jobs, by user and requested walltime as if each were a task."""
    if not THETA.exists():
        print("\nno traces: the third table is left out")
        return
    with gzip.open(THETA, "rt") as file:
        rows = [
            (r["user"], float(r["wall_time"]), float(r["submit_time"]) + float(r["wait_time"]) + float(r["run_time"]), float(r["run_time"]))
            for r in csv.DictReader(file)
        ]  # fmt: skip
    print(f"\n{len(rows)} jobs of Theta, each user and requested walltime a task, in the order of their ends")
    for risk in (0.05, 0.1, 0.2):
        known = Knowledge.fresh(min(r[2] for r in rows))
        known.risk = risk
        tasks: dict[tuple[str, float], int] = {}
        for user, wall, end, run in sorted((r for r in rows if r[3] > 0 and r[1] > 0), key=lambda r: r[2]):
            task = tasks.setdefault((user, wall), len(tasks))
            known.meet(task, TaskWords(walltime_s=wall), end)
            known.saw_jobs(task, [min(run, wall)], end)
        c = known.calibration
        print(
            f"  promised {risk:.0%}: {c.promised} promises, exceeded by {c.exceeded_share or 0:.1%}, "
            f"time used over promised {c.used_share or 0:.2f}"
        )


if __name__ == "__main__":
    costs()
    for level in (0.1, 0.02):
        coverage(level)
    real()
