"""The command line: what it says, and how it exits."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hpcpanda_edge.state_folder import StateFolder
from support.edge_books import fresh

LAPTOP = Path(__file__).parents[3] / "site-configs" / "laptop.toml"


def edge(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpcpanda_edge.cli", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "COLUMNS": "200"} | environment,
        check=False,
    )


def test_check_prints_what_is_understood_and_what_was_found(tmp_path: Path):
    """A site that works exits 0."""
    done = edge("check", str(LAPTOP), "--spool", str(tmp_path / "spool"))
    assert done.returncode == 0, done.stderr
    assert '"poll_seconds": 0.5' in done.stdout
    assert "ok    launcher.command" in done.stdout


def test_check_names_the_field_that_is_wrong(tmp_path: Path):
    """A launcher that is not there exits 1, with one line on stderr."""
    site = tmp_path / "site.toml"
    site.write_text(LAPTOP.read_text().replace('"mpiexec"', '"no-such-launcher"'))
    done = edge("check", str(site), "--spool", str(tmp_path / "spool"))
    assert done.returncode == 1
    assert "launcher.command: no-such-launcher is neither" in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_usage_exits_with_2():
    """As other commands do."""
    assert edge("run").returncode == 2


def test_run_without_a_dispatcher_says_what_to_do(tmp_path: Path):
    """The file looked for, and the option to give instead."""
    done = edge(
        "run", "--site", str(LAPTOP), "--spool", str(tmp_path), HPCPANDA_STATE=str(tmp_path / "state")
    )
    assert done.returncode == 1
    assert "state/dispatcher/url: No such file or directory; say --dispatcher" in done.stderr


@pytest.mark.parametrize("command", ["status", "explain", "drain"])
def test_without_an_edge_there_is_nothing_to_look_at(tmp_path: Path, command: str):
    """Exit 1 with the spool's name."""
    done = edge(command, "--site", str(LAPTOP), "--spool", str(tmp_path))
    assert done.returncode == 1
    assert str(tmp_path) in done.stderr


def test_status_shows_tasks_with_the_reason_they_are_where_they_are(tmp_path: Path):
    """As JSON for programs, as a table for people, or as nothing but the exit code."""
    folder = StateFolder.of(tmp_path)
    folder.create()
    fresh(folder.database, held=30).close()
    words = ("status", "--site", str(LAPTOP), "--spool", str(tmp_path), "--output")
    shown = json.loads(edge(*words, "json").stdout)
    assert shown["running"] is False
    (task,) = shown["tasks"]
    assert (task["name"], task["waiting"], task["in_work"]) == ("sand", 70, 30)
    assert task["reason"] == "starting"
    assert "sand" in edge(*words, "table").stdout
    assert edge(*words, "quiet").stdout == ""


def test_explain_says_why_in_sentences(tmp_path: Path):
    """As JSON for programs, as text for people; of a task that is not here, where to ask."""
    folder = StateFolder.of(tmp_path)
    folder.create()
    fresh(folder.database, held=30).close()
    words = ("explain", "--site", str(LAPTOP), "--spool", str(tmp_path))
    told = json.loads(edge(*words, "--output", "json").stdout)
    assert [(t["name"], t["reason"]) for t in told["tasks"]] == [("sand", "starting")]
    text = edge(*words, "1").stdout
    assert "An allocation for 70 events is about to be asked for." in text
    assert "No edge runs over this spool" in text
    assert "this edge has nothing of task 5" in edge(*words, "5").stderr
