"""The site files that come with the product: valid, sourced, and turned into the right job script."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hpcpanda_edge.checking import would_submit

from hpcpanda.domain.site import PackVia, QueueLimits, Site

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CONFIGS = Path(__file__).parents[3] / "site-configs"
FILES = sorted(CONFIGS.glob("*.toml"))
MACHINES = [p for p in FILES if p.stem not in {"laptop", "loopback-cluster"}]
CENTRES = [p for p in MACHINES if not p.stem.startswith("generic-")]

LSF = """
name = "lsf-machine"
spool = "/spool"
[nodes]
count = 8
cores = 40
memory_mb = 200000
gpus = 4
[scheduler]
executor = "lsf"
queue = "killable"
account = "m0000"
[scheduler.options]
"lsf.alloc_flags" = "smt1 nvme"
[launcher]
command = ["jsrun", "-n", "{ranks}", "-r", "1", "-a", "1", "-c", "ALL_CPUS"]
[allocation]
walltime_s = 5400
"""


def named(path: Path) -> str:
    return path.stem


@pytest.fixture(params=MACHINES, ids=named)
def machine(request: pytest.FixtureRequest, described: Callable[[Path], Site]) -> Site:
    return described(request.param)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_every_file_is_valid_and_named_as_its_site(path: Path, described: Callable[[Path], Site]):
    """With its variables set it loads, and the file's name is the site's."""
    assert described(path).name == path.stem


@pytest.mark.parametrize("path", CENTRES, ids=named)
def test_every_number_in_brackets_is_a_source_of_the_file(path: Path):
    """What is said about a centre has a source at the top, and every source is used."""
    text = path.read_text()
    top, _, body = text.partition("\nname = ")
    listed = set(re.findall(r"(?m)^#   (\[\d\]) ", top))
    assert listed
    assert set(re.findall(r"# .*?(\[\d\])", body)) == listed


def test_allocations_keep_a_margin_and_start_one_rank_a_node(machine: Site):
    """The shape that packs rely on: one rank a node, and time to end before the wall."""
    assert machine.allocation.margin_s >= machine.allocation.grace_s
    assert machine.launcher.packs is PackVia.DIRECT
    assert {"--ntasks-per-node=1", "-ppn"} & set(machine.launcher.command)


def test_the_job_script_asks_for_what_the_site_file_says(machine: Site):
    """Queue, account, nodes, wall time and whole nodes stand in the script that PSI/J's template gives."""
    script = would_submit(machine).script
    missing = [line for line in directives(machine) if line not in script.splitlines()]
    assert not missing, script
    assert "hpcpanda.allocation.head" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_preempted_allocation_is_not_queued_again_by_the_batch_system(machine: Site):
    """The edge plans anew, so every file says no to a second start of the same job."""
    said = {"#SBATCH --no-requeue", '#PBS -r "n"'}
    assert said & set(would_submit(machine).script.splitlines())


def test_every_bound_of_a_queue_is_on_the_reference_page():
    """A field that a user can write is documented, and so is its table."""
    text = (CONFIGS.parent / "docs" / "reference" / "site-file.md").read_text()
    assert not [f.name for f in dataclasses.fields(QueueLimits) if f"| `{f.name}` |" not in text]
    assert not [p.name for p in FILES if f"`{p.name}`" not in text]


def test_lsf_too_asks_for_what_the_site_file_says(tmp_path: Path, described: Callable[[Path], Site]):
    """Queue, account, nodes, wall time, whole nodes, GPUs, and an option with a blank in its value."""
    path = tmp_path / "lsf.toml"
    path.write_text(LSF)
    would = would_submit(described(path))
    expected = {
        '#BSUB -q "killable"', '#BSUB -P "m0000"', "#BSUB -nnodes 8", "#BSUB -W 1:30", "#BSUB -x",
        '#BSUB -gpu "num=4"', '#BSUB -J "dry-run"', '#BSUB -alloc_flags "smt1 nvme"',
    }  # fmt: skip
    assert expected <= set(would.script.splitlines())
    assert would.command[0] == "bsub"
    assert set(would.programs) == {"bsub", "bjobs", "bkill"}


def test_setup_and_interpreter_come_before_the_head(tmp_path: Path, described: Callable[[Path], Site]):
    """The launch command reads the allocation's set-up file and runs the interpreter of the compute nodes."""
    path = tmp_path / "lsf.toml"
    path.write_text(
        LSF.replace(
            "[scheduler.options]", 'setup = ["module load a"]\npython = "/opt/py"\n[scheduler.options]'
        )
    )
    site = described(path)
    launch = next(x for x in would_submit(site).script.splitlines() if "single_launch.sh" in x)
    assert f"{site.spool}/allocations/dry-run/setup.sh" in launch
    assert "/opt/py -m hpcpanda.allocation.head" in launch


def directives(site: Site) -> list[str]:
    """What a site's job script must say, in the words of its batch system."""
    scheduler, nodes = site.scheduler, site.node_limit
    wall = timedelta(seconds=site.allocation.walltime_s)
    hours, minutes = int(wall.total_seconds()) // 3600, wall.seconds // 60 % 60
    if scheduler.executor == "pbs":
        slots = scheduler.slots_per_node
        options = [f'#PBS -{key[4:]} "{value}"' for key, value in scheduler.options.items()]
        return [
            f"#PBS -q {scheduler.queue}",
            f"#PBS -A {scheduler.account}",
            f"#PBS -l select={nodes}:ncpus={slots}:mpiprocs={slots}",
            f"#PBS -l walltime={hours}:{minutes}:0",
            "#PBS -l place=scatter:exclhost",
            *options,
        ]
    assert scheduler.executor == "slurm"
    said = {"partition": scheduler.queue, "qos": scheduler.qos, "constraint": scheduler.constraint}
    gpus = site.nodes.gpus
    return [
        f'#SBATCH --account="{scheduler.account}"',
        f"#SBATCH --nodes={nodes}",
        f"#SBATCH --time={hours}:{minutes}:0",
        "#SBATCH --exclusive",
        *(f'#SBATCH --{key}="{value}"' for key, value in said.items() if value),
        *([f'#SBATCH --gpus-per-node="{gpus}"'] if gpus else []),
    ]
