"""One scenario in the simulator and on the loopback Slurm cluster, with the real edge: the two harvests side by side.

python -m tests.benchmarks.bench_simulator_truth [preempted|beside] [--seconds S] [--seed N] [--startup S] [--keep FOLDER]

``preempted``: host jobs drawn from a seed preempt ours (480 s when not said). ``beside``: the host's jobs are all there
from the begin, and ours run in the holes between them (420 s). The start-up of an allocation is measured before, in a
short run of another seed; it is all that the simulator is told of reality. The machine should be quiet.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from tests.support.slurm import cluster
from tests.support.truth import Harvest, Scenario, drawn_host, host_with_holes, simulated
from tests.support.truth_reality import Reality

SECONDS = {"preempted": 480.0, "beside": 420.0}
CALIBRATION_S = 75.0
EVERY_S = 45.0
"""Mean time between two host jobs that preempt."""


def preempted(seconds: float, seed: int) -> Scenario:
    """The host's jobs come as drawn, and take what they need."""
    return Scenario(seconds=seconds, host=drawn_host(seed, seconds=seconds, every_s=EVERY_S), preempts=True)


def show(real: Harvest, models: dict[str, Harvest]) -> None:
    """What each came to, and the simulator's ratio to reality."""
    print(f"{'':30}{'Slurm':>10}" + "".join(f"{name:>24}" for name in models))
    for name, words in (
        ("held", "held, node-seconds"),
        ("useful", "useful, core-seconds"),
        ("lost", "lost, core-seconds"),
        ("events", "events finished"),
        ("jobs", "jobs finished"),
        ("allocations", "allocations started"),
        ("preempted", "of these ended before the end"),
        ("startup_s", "start-up, s"),
        ("queue_s", "request to start, s"),
    ):
        told = float(getattr(real, name))
        line = f"{words:30}{told:10.1f}"
        for model in models.values():
            value = float(getattr(model, name))
            line += f"{value:14.1f}" + (f" ({value / told:7.3f})" if told else " " * 10)
        print(line)
    for name, harvest in {"Slurm": real, **models}.items():
        print(f"host starts, {name}: " + " ".join(f"{s:.0f}" for s in harvest.host))


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", nargs="?", choices=SECONDS, default="preempted")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--startup", type=float, help="seconds, when it was measured before")
    parser.add_argument("--keep", type=Path, help="an existing folder for logs, notes and the spool")
    said = parser.parse_args()
    seconds = said.seconds or SECONDS[said.kind]
    if said.kind == "preempted":
        scenario = preempted(seconds, said.seed)
    else:
        scenario = Scenario(seconds=seconds, host=host_with_holes(), preempts=False, work_at=5.0)
    with cluster() as slurm, tempfile.TemporaryDirectory(prefix="truth-") as made:
        folder = said.keep or Path(made)
        os.environ |= slurm.variables
        print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
        startup_s = said.startup
        if startup_s is None:
            (folder / "short").mkdir()
            short = Reality(folder / "short", slurm, preempted(CALIBRATION_S, said.seed + 1))
            startup_s = short.harvest().startup_s
            print(
                f"start-up {startup_s:.2f} s, measured in {CALIBRATION_S:.0f} s of another seed", flush=True
            )
        (folder / "long").mkdir()
        reality = Reality(folder / "long", slurm, scenario)
        real = reality.harvest()
        shutil.copy(slurm.folder / "accounting", folder / "accounting")
        models = {"simulator": simulated(scenario, reality.site, startup_s=startup_s)}
        show(real, models)
        print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
