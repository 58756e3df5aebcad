"""A simulated week of three groups on one machine: are the targets met, and is what one leaves used by the others?

    .venv/bin/python -m tests.benchmarks.bench_fair_share

Three groups with targets 50, 30 and 20 %, the last in two parts of 3 and 1; priorities pull against the targets. On
days 3 and 4 the third group has no work and the others borrow its part; it then comes back. Jobs last half an hour
to one and a half. The order is the product's own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.share_world import Stream, Week, simulate

from hpcpanda.brokerage.fairness import targets as targets_of
from hpcpanda.brokerage.shares import Share, SharePlan, ShareTree

CORES = 200
HOURS = 168
AWAY = range(48, 96)
GROUPS = ("atlas", "cms", "muon-sim", "muon-ana")
PLAN = SharePlan(
    shares=(
        Share(name="atlas", target=50, groups=("atlas",)),
        Share(name="cms", target=30, groups=("cms",)),
        Share(name="muon", target=20),
        Share(name="muon-sim", parent="muon", target=3, groups=("muon-sim",)),
        Share(name="muon-ana", parent="muon", target=1, groups=("muon-ana",)),
    ),
    default_share="cms",
    half_life_h=24,
)
PRIORITIES = {"atlas": -1000, "cms": 1000, "muon-sim": 0, "muon-ana": 500}


def there(group: str, hour: float) -> bool:
    """Whether the group has work."""
    return not (group.startswith("muon") and int(hour) in AWAY)


def week(hours: int = HOURS, cores: int = CORES, step_s: float = 60.0) -> Week:
    """Run it."""
    streams = [
        Stream(user=g, group=g, priority=PRIORITIES[g], active=lambda h, g=g: there(g, h)) for g in GROUPS
    ]
    return simulate(ShareTree(PLAN), streams, cores=cores, hours=hours, step_s=step_s)


def targets(hour: int) -> dict[str, float]:
    """What each group should have in an hour, those without work lending theirs."""
    return dict.fromkeys(GROUPS, 0.0) | targets_of(ShareTree(PLAN), {g for g in GROUPS if there(g, hour)})


def deviations(result: Week, hours: range) -> dict[str, float]:
    """By how much of the machine each group had more or less than its targets, over some hours."""
    parts = result.parts(hours)
    wanted = {g: sum(targets(h)[g] for h in hours) / len(hours) for g in GROUPS}
    return {g: parts.get(g, 0.0) - wanted[g] for g in GROUPS}


PERIODS = {
    "all have work (days 1-2)": range(48),
    "muon is away (days 3-4)": AWAY,
    "muon is back (days 5-7)": range(96, HOURS),
    "the last day": range(HOURS - 24, HOURS),
    "the week": range(HOURS),
}


@pytest.mark.benchmark
def test_a_week() -> None:
    """Within 2 % of the machine over the week, and nothing idle while somebody has work."""
    result = week()
    assert max(map(abs, deviations(result, PERIODS["the week"]).values())) <= 0.02
    assert result.idle == 0


def main() -> None:
    """Print the table."""
    began = perf_counter()
    result = week()
    took = perf_counter() - began
    for name, hours in PERIODS.items():
        cells = ", ".join(
            f"{g} {result.parts(hours).get(g, 0.0):6.2%} ({d:+.2%})"
            for g, d in deviations(result, hours).items()
        )
        print(f"{name:26} {cells}")
    print(
        f"idle with work waiting: {result.idle:.0f} core-seconds; {took:.1f} s for {sum(result.core_seconds.values()) / 3600:.0f} core-hours"
    )


if __name__ == "__main__":
    main()
