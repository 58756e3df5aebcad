"""How many nodes are left, from a batch system that answers, or does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcpanda.allocation import nodes_left
from hpcpanda.allocation.nodes_left import NodeCount, question

Ask = Callable[[str], int | None]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Asks a squeue that is a line of sh."""

    def asked(line: str) -> int | None:
        squeue = tmp_path / "squeue"
        squeue.write_text(f"#!/bin/sh\n{line}\n")
        squeue.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        command = question("slurm", {"SLURM_JOB_ID": "77"})
        assert command is not None
        count = NodeCount(command)
        while not count.over:
            time.sleep(0.01)
        return count.close()

    return asked


def test_slurm_is_asked_for_the_nodes_of_this_job(ask: Ask) -> None:
    """The number that squeue prints for the job of the environment."""
    assert ask('[ "$*" = "--noheader --jobs=77 --format=%D" ] && echo 3') == 3


@pytest.mark.parametrize(
    "line", ["exit 1", "echo 3; exit 1", "echo many", "echo 3; echo 4", "yes 3 | head -n 9999", ":"]
)
def test_what_is_no_answer_is_not_believed(ask: Ask, line: str) -> None:
    """Errors, and anything but one number."""
    assert ask(line) is None


def test_an_answer_is_not_waited_for_long(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch system that hangs is left alone, and its client ended."""
    monkeypatch.setattr(nodes_left, "PATIENCE_S", 0.1)
    began = time.monotonic()
    assert ask("exec sleep 60") is None
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("environment", [{}, {"SLURM_JOB_ID": ""}, {"SLURM_JOB_ID": "7; rm"}])
def test_elsewhere_nobody_is_asked(environment: dict[str, str]) -> None:
    """Outside a batch job of Slurm the number is not known."""
    assert question("slurm", environment) is None


def test_the_laptop_is_not_asked() -> None:
    """Pretended nodes inside somebody's batch job are not those of the job."""
    assert question("local", {"SLURM_JOB_ID": "77"}) is None
