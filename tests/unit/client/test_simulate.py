"""``hpcpanda simulate`` from the command line: what it reads, says, prints and draws."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from hpcpanda.client import simulating
from hpcpanda.client.cli import app
from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.simulate.harvest import PolicyName

SITE = """name = "tiny"
spool = "$NOT_SET/spool"
[nodes]
count = 100
cores = 16
memory_mb = 16000
[scheduler]
executor = "slurm"
account = "$NOT_SET"
[allocation]
walltime_s = 7200
[limits]
allocations = 4
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A trace of six nodes over half a day with holes of different lengths, on the last day of 2025; and a site."""
    jobs = [
        (0, 0, 20_000, 3),
        (100, 0, 5000, 2),
        (6000, 0, 9000, 2),
        (21_000, 0, 20_000, 5),
        (30_000, 0, 100, 1),
    ]
    lines = [
        f"{i} {submit} {wait} {run} {nodes} -1 -1 {nodes} {run + 600} -1 1 1 1 -1 1 -1 -1 -1\n"
        for i, (submit, wait, run, nodes) in enumerate(jobs)
    ]
    trace = tmp_path / "trace.swf"
    trace.write_text("; UnixStartTime: 1767139200\n; MaxNodes: 6\n; MaxProcs: 6\n" + "".join(lines))
    site = tmp_path / "site.toml"
    site.write_text(SITE)
    return str(trace), str(site)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *words])


def ran(*words: str) -> Result:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result


def problem(*words: str) -> str:
    """The product's error that main() would print."""
    result = run(*words)
    assert isinstance(result.exception, HpcPandaError), result.output
    return str(result.exception)


def test_a_trace_is_simulated_and_told(files: tuple[str, str], tmp_path: Path) -> None:
    """A table on stdout; flaws, the site and the pictures on stderr; variables of the site file need not be set."""
    trace, site = files
    folder = tmp_path / "pictures"
    done = ran(
        trace, "--site", site, "--policy", "fixed-pilots", "--policy", "ours", "--pictures", str(folder)
    )
    assert "trace.swf (swf): 5 jobs on 6 nodes" in done.stdout
    assert "useful, of the harvestable" in done.stdout
    assert "site tiny: 6 nodes of 16 cores; at most 4 allocations and 6 nodes of ours" in done.stderr
    assert len(list(folder.glob("*.png"))) == done.stderr.count("drew ") == 4


def test_json_is_the_same_again(files: tuple[str, str]) -> None:
    """But for the time that it took; useful, lost and overhead are what was held."""
    trace, site = files

    def once(seed: int) -> dict[str, object]:
        words = (trace, "--site", site, "--policy", "ours", "--seed", str(seed), "-o", "json")
        return {**json.loads(ran(*words).stdout), "wall_s": 0}

    found = once(3)
    assert found == once(3)
    (ours,) = found["policies"]  # type: ignore[misc]
    assert ours["held"] + ours["displaced"] == pytest.approx(ours["useful"] + ours["lost"] + ours["overhead"])
    assert 0 < ours["useful_share"] <= 1
    assert ours["host"]["jobs"] == 5


def test_quiet_prints_a_share_a_policy(files: tuple[str, str]) -> None:
    """Named twice it is simulated once."""
    trace, site = files
    done = ran(trace, "--site", site, "--policy", "titan", "--policy", "titan", "-o", "quiet")
    (line,) = done.stdout.splitlines()
    assert 0 <= float(line.split("\t")[1]) <= 1


def test_estimated_windows_and_preemption(files: tuple[str, str]) -> None:
    """Are options of the simulation; preemption needs the former."""
    trace, site = files
    words = (trace, "--site", site, "--policy", "fixed-pilots", "--preemptible", "-o", "quiet")
    assert "estimated" in problem(*words)
    ran(*words, "--windows", "estimated")


@pytest.mark.parametrize(
    ("words", "jobs"), [(("--days", "0.2"), 3), (("--year", "2025"), 4), (("--year", "2026"), 2)]
)
def test_a_part_of_the_trace(files: tuple[str, str], words: tuple[str, ...], jobs: int) -> None:
    """The first days, or a year: what was running at its begin is in it."""
    text = Path(files[0]).read_text().replace("1767139200", "1767200400")  # 17:00 on the last day of 2025
    Path(files[0]).write_text(text)
    done = ran(files[0], "--site", files[1], "--policy", "titan", "-o", "json", *words)
    assert json.loads(done.stdout)["policies"][0]["host"]["jobs"] == jobs


def test_limits_of_the_site_stay(files: tuple[str, str]) -> None:
    """The trace tells the machine's nodes, the site file what we may have of them."""
    trace, site = files
    Path(site).write_text(
        SITE.replace("allocations = 4", "allocations = 2\nnodes = 3") + "[queue]\nmax_nodes = 2\n"
    )
    assert (
        "at most 2 allocations and 3 nodes of ours" in ran(trace, "--site", site, "--policy", "titan").stderr
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--policy", "best"), "policy: 'best' is none of ours"),
        (("--year", "1999"), "no job of 1999"),
        (("--format", "pbs"), "no job that can be replayed"),
    ],
)
def test_errors_are_of_the_product(files: tuple[str, str], words: tuple[str, ...], told: str) -> None:
    """Each says what is wrong."""
    trace, site = files
    assert told in problem(trace, "--site", site, *words)


@pytest.mark.parametrize(
    "words",
    [(), ("trace",), ("--site", "x"), ("trace", "--preset", "perlmutter"), ("t", "--site", "x", "--days", "1", "--year", "2025")],
)  # fmt: skip
def test_wrong_usage(words: tuple[str, ...]) -> None:
    """What does not go together, or is missing, exits 2 before anything is read."""
    assert run(*words).exit_code == 2


def test_the_preset_needs_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Perlmutter scenario, at a scale for tests: a table with checks, JSON, and pictures."""
    small = cache(partial(simulating.run_perlmutter, scale=0.0005))
    monkeypatch.setattr(simulating, "run_perlmutter", lambda seed, progress: small(seed=seed))
    done = ran("--preset", "perlmutter", "--seed", "2", "--pictures", str(tmp_path))
    assert "as today" in done.stdout
    assert "published" in done.stdout
    assert done.stderr.count("drew ") == len(list(tmp_path.glob("*.png"))) > 0
    found = json.loads(ran("--preset", "perlmutter", "--seed", "2", "-o", "json").stdout)
    assert found["seed"] == 2
    assert len(found["policies"]) >= 3


def test_every_option_is_documented() -> None:
    """On the page of the command line, as are the policies."""
    page = (Path(__file__).parents[3] / "docs/reference/command-line.md").read_text()
    command = typer.main.get_command(app).commands["simulate"]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert len(options) > 10
    assert not [option for option in options if f"`{option}`" not in page]
    assert not [name for name in PolicyName if f"`{name}`" not in page]
