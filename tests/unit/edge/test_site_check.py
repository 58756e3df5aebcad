"""``hpcpanda-edge check``: what it probes, what it would submit, and how it names what is wrong.

Programs of batch systems are stand-ins on PATH: empty scripts that are only looked for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SITE = """
name = "here"
spool = "{spool}"
[nodes]
count = 6
cores = 4
memory_mb = 1000
[scheduler]
executor = "lsf"
queue = "killable"
account = "$MY_ACCOUNT"
{scheduler}
[launcher]
command = ["{launcher}", "-n", "{{ranks}}"]
[allocation]
walltime_s = 600
"""


class Check:
    """A site file, stand-ins for programs, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.put("bsub", "bjobs", "bkill", "jsrun")

    def put(self, *names: str, folder: Path | None = None) -> None:
        for name in names:
            program = (folder or self.programs) / name
            program.write_text("#!/bin/sh\n")
            program.chmod(0o755)

    def __call__(
        self, *words: str, scheduler: str = "", launcher: str = "jsrun"
    ) -> subprocess.CompletedProcess[str]:
        site = self.folder / "site.toml"
        site.write_text(SITE.format(spool=self.folder / "spool", scheduler=scheduler, launcher=launcher))
        return subprocess.run(
            [sys.executable, "-m", "hpcpanda_edge.cli", "check", str(site), *words],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": f"{self.programs}{os.pathsep}/usr/bin:/bin",
                "HOME": str(self.folder),
                "MY_ACCOUNT": "m1",
            },
            check=False,
        )


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(tmp_path)


def test_dry_run_shows_the_job_script_of_the_largest_allocation(check: Check):
    """Quiet gives the script alone, ready to be read or submitted by hand."""
    done = check("--dry-run", "--output", "quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!/bin/bash")
    for directive in ('-q "killable"', '-P "m1"', "-nnodes 6", "-W 0:10", "-x"):
        assert f"#BSUB {directive}\n" in done.stdout


def test_for_people_the_findings_come_first(check: Check):
    """Spool, interpreter, launcher, batch system, then the command and the script."""
    done = check("--dry-run")
    assert done.returncode == 0, done.stderr
    fields = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert fields == ["spool:", "scheduler.python:", "launcher.command:", "scheduler.executor:"]
    assert "\nwould be submitted: bsub " in done.stdout


def test_as_json_everything_is_one_document(check: Check):
    """Site, findings and script, for programs."""
    shown = json.loads(check("--output", "json").stdout)
    assert shown["site"]["scheduler"]["account"] == "m1"
    assert all(f["ok"] for f in shown["findings"])
    assert shown["submission"]["programs"] == ["bsub", "bjobs", "bkill"]
    assert "#BSUB -nnodes 6" in shown["submission"]["script"]


def test_programs_of_the_batch_system_that_are_missing_are_named(check: Check):
    """All of them, on one line; the script is shown all the same, for a look from elsewhere."""
    (check.programs / "bsub").unlink()
    (check.programs / "bkill").unlink()
    done = check("--dry-run", "--output", "quiet")
    assert done.returncode == 1
    assert "scheduler.executor: lsf needs bsub, bkill, not on PATH here" in done.stderr
    assert "#BSUB -nnodes 6" in done.stdout


def test_setup_lines_may_bring_the_launcher(check: Check, tmp_path: Path):
    """What they put on PATH is found, as the head will find it."""
    (tmp_path / "module").mkdir()
    check.put("launch-it", folder=tmp_path / "module")
    setup = f'setup = ["PATH=$PATH:{tmp_path}/module", "export PATH"]'
    done = check(scheduler=setup, launcher="launch-it")
    assert done.returncode == 0, done.stderr
    assert f"launch-it is {tmp_path}/module/launch-it" in done.stdout


@pytest.mark.parametrize(
    ("scheduler", "launcher", "message"),
    [
        ('setup = ["no-such-module-command load x"]', "jsrun", "scheduler.setup: ends with 127 on this node"),
        ('python = "/no/such/python"', "jsrun", "scheduler.python: /no/such/python cannot run the head"),
        ("", "no-launcher", "launcher.command: no-launcher is neither beside"),
        ('options = { "slurm.qos" = "low" }', "jsrun", "scheduler.options: 'slurm.qos' would be ignored"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(check: Check, scheduler: str, launcher: str, message: str):
    """Exit 1, and one line on stderr that says which field of the file to change."""
    done = check("--output", "quiet", scheduler=scheduler, launcher=launcher)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
