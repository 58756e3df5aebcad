"""Small jobs a second: ``/bin/true`` through one job keeper, beside a bare loop of posix_spawn(3).

``python -m tests.benchmarks.bench_jobs [RUNS]`` runs all in turn and prints medians and the ratio to the bare loop with
two programs at a time, which neither makes folders nor reports. Ours gives each job its work folder and reports on it.
"""

from __future__ import annotations

import os
import select
import statistics
import sys
import time
from collections.abc import Callable

from tests.support.job_keeper import keeping

JOBS = 2000
"""Jobs a run."""
AHEAD = 4
"""Jobs that the keeper has in hand: on two cores two more than run, so that no core waits for the next."""


def bare(at_a_time: int) -> float:
    """Programs started and waited for, nothing else."""
    environment = dict(os.environ)
    began = time.perf_counter()
    for number in range(JOBS + at_a_time):
        if number >= at_a_time:
            os.wait()
        if number < JOBS:
            os.posix_spawn("/bin/true", ["true"], environment)
    return JOBS / (time.perf_counter() - began)


def ours(place: str | None = None) -> float:
    """Jobs through a keeper, each forgotten when its report has come."""
    with keeping(place=place) as kept:
        for run in [kept.run("/bin/true") for _ in range(AHEAD)]:
            kept.result(run)  # its runners are there
        began = time.perf_counter()
        started = ended = 0
        while ended < JOBS:
            while started < min(ended + AHEAD, JOBS):
                kept.run("/bin/true")
                started += 1
            select.select([kept.keeper.sock], [], [])
            for notice in kept.keeper.notices() or ():
                assert notice.report.error is None
                kept.keeper.forget(notice.run_id)
                ended += 1
        return JOBS / (time.perf_counter() - began)


CONTENDERS: dict[str, Callable[[], float]] = {
    "posix_spawn, one at a time": lambda: bare(1),
    "posix_spawn, two at a time": lambda: bare(2),
    "hpcpanda, one keeper": ours,
    "hpcpanda, work folders in RAM": lambda: ours("/dev/shm"),
}


def main() -> None:
    """Run all in turn and print the table."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    found: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for _ in range(runs):
        for name, run in CONTENDERS.items():
            found[name].append(run())
    two = statistics.median(found["posix_spawn, two at a time"])
    print(
        f"{'jobs of /bin/true a second':32}{'median':>10}{'best':>10}{'to bare, two':>14}   ({runs} runs in turn)"
    )
    for name, rates in found.items():
        median = statistics.median(rates)
        print(f"{name:32}{median:10,.0f}{max(rates):10,.0f}{median / two:14.3f}")


if __name__ == "__main__":
    main()
