"""Site files: every error names the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcpanda.client.site_file import load_site
from hpcpanda.domain.errors import InvalidValue

GOOD = 'name = "here"\nspool = "/spool"\n[nodes]\ncount = 2\ncores = 4\nmemory_mb = 1000\n'
SLURM = GOOD + '[scheduler]\nexecutor = "slurm"\n'
PBS = GOOD + '[scheduler]\nexecutor = "pbs"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return path


def test_home_and_variables_in_the_spool_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``~`` and ``$VARIABLES`` both."""
    monkeypatch.setenv("HOME", "/home/engineer")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    home = write(tmp_path, GOOD.replace("/spool", "~/spool"))
    assert load_site(home).spool == "/home/engineer/spool"
    scratch = write(tmp_path, GOOD.replace("/spool", "$SCRATCH/spool"))
    assert load_site(scratch).spool == "/scratch/me/spool"


def test_variables_in_account_and_interpreter_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that one file serves several projects, and an environment in the home folder."""
    monkeypatch.setenv("HOME", "/home/engineer")
    monkeypatch.setenv("MY_ACCOUNT", "m1")
    text = SLURM + 'account = "$MY_ACCOUNT"\npython = "~/env/bin/python"\n'
    scheduler = load_site(write(tmp_path, text)).scheduler
    assert (scheduler.account, scheduler.python) == ("m1", "/home/engineer/env/bin/python")


def test_a_spool_given_by_hand_wins(tmp_path: Path):
    """For trying a site file elsewhere."""
    assert load_site(write(tmp_path, GOOD), spool=tmp_path).spool == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("cores = 4", "cores = 0"), "nodes.cores: 0 is outside"),
        (GOOD.replace("cores = 4", 'cores = "four"'), "nodes.cores: Input should be a valid integer"),
        (GOOD.replace("cores = 4", ""), "nodes.cores: Field required"),
        (
            GOOD.replace("cores = 4", "cores = 4\nwalltime = 1"),
            "nodes.walltime: there is no such field; did you mean allocation.walltime_s?",
        ),
        (GOOD.replace("cores = 4", "cores = 4\ncolour = 1"), "nodes.colour: there is no such field"),
        (GOOD.replace("/spool", "spool"), "spool: 'spool' is not an absolute path"),
        (GOOD.replace("/spool", "$NO_SUCH_VARIABLE/x"), "spool: the variable NO_SUCH_VARIABLE"),
        (GOOD + '[launcher]\ncommand = ["srun"]\n', "launcher.command: must name {ranks}"),
        ("name = ", "is not TOML"),
        (SLURM + 'account = "$NO_SUCH_VARIABLE"\n', "scheduler.account: the variable NO_SUCH_VARIABLE"),
        (SLURM + 'queue = "two words"\n', "scheduler.queue: 'two words' is empty or has characters"),
        (SLURM + 'constraint = "a;b"\n', "scheduler.constraint: 'a;b' is empty or has characters"),
        (PBS + 'qos = "low"\n', "scheduler.qos: only Slurm has it, not pbs"),
        (PBS + 'constraint = "cpu"\n', "scheduler.constraint: only Slurm has it, not pbs"),
        (SLURM + 'qos = "a"\noptions = {"slurm.qos" = "b"}\n', "scheduler.qos: is said again as slurm.qos"),
        (PBS + 'options = {"slurm.qos" = "b"}\n', "scheduler.options: 'slurm.qos' would be ignored"),
        (SLURM + 'setup = ["a\\nb"]\n', "scheduler.setup: 'a\\nb' is not one line"),
        (SLURM + 'python = "python3"\n', "scheduler.python: 'python3' is not an absolute path"),
        (SLURM + "slots_per_node = 0\n", "scheduler.slots_per_node: 0 is outside"),
        (GOOD + "gpus = -1\n", "nodes.gpus: -1 is outside"),
        (GOOD + "[queue]\nmin_nodes = 3\n", "limits.nodes: 2 is less than queue.min_nodes, 3"),
        (GOOD + "[queue]\nmin_nodes = 2\nmax_nodes = 1\n", "queue.max_nodes: 1 is outside"),
        (
            GOOD + "[queue]\nmax_walltime_s = 1800\n",
            "allocation.walltime_s: 3600 is more than queue.max_walltime_s",
        ),
        (
            GOOD + "[limits]\nallocations = 3\n[queue]\nmax_jobs = 2\n",
            "limits.allocations: 3 is more than queue.max_jobs",
        ),
    ],
)
def test_what_is_wrong_is_said_with_file_and_field(tmp_path: Path, text: str, message: str):
    """One line that a person can act on."""
    path = write(tmp_path, text)
    with pytest.raises(InvalidValue) as caught:
        load_site(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    """With the reason of the system."""
    with pytest.raises(InvalidValue, match=r"none.toml: cannot be read: No such file"):
        load_site(tmp_path / "none.toml")


def test_a_site_elsewhere_needs_none_of_its_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The simulator reads the file of a machine whose variables are not set; the rest of the file still counts."""
    monkeypatch.delenv("SCRATCH", raising=False)
    text = (
        SLURM.replace("/spool", "$SCRATCH/spool") + 'account = "$SCRATCH"\npython = "~/py"\nqueue = "long"\n'
    )
    path = write(tmp_path, text)
    with pytest.raises(InvalidValue, match="SCRATCH"):
        load_site(path)
    site = load_site(path, elsewhere=True)
    assert (site.spool, site.scheduler.account, site.scheduler.queue) == ("/", None, "long")
    with pytest.raises(InvalidValue, match=r"nodes\.cores"):
        load_site(write(tmp_path, text.replace("cores = 4", "cores = 0")), elsewhere=True)
