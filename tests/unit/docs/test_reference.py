"""The reference pages name everything there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import hpcpanda_edge.cli
import pytest
import typer
from typer.core import TyperGroup

import hpcpanda.client.cli
from hpcpanda.domain import site, task

DOCS = Path(__file__).parents[3] / "docs" / "reference"


def commands(command: object, name: str) -> list[str]:
    if isinstance(command, TyperGroup):
        return [c for n, sub in command.commands.items() for c in commands(sub, f"{name} {n}")]
    return [name]


@pytest.mark.parametrize(
    ("page", "model"),
    [
        *(("task-file.md", m) for m in (task.TaskSpec, task.CallablePayload, task.CommandPayload, task.ProcessPayload)),
        *(("task-file.md", m) for m in (task.Inputs, task.InputFile, task.Output, task.Resources, task.RangePolicy)),
        ("task-file.md", task.LossPolicy),
        *(("site-file.md", m) for m in (site.Site, site.NodeSettings, site.SchedulerSettings)),
        *(("site-file.md", m) for m in (site.LauncherSettings, site.AllocationSettings, site.LimitSettings)),
    ],
)  # fmt: skip
def test_every_field_is_documented(page: str, model: type) -> None:
    """A field that a user can write is on its reference page."""
    text = (DOCS / page).read_text()
    missing = [
        f.name for f in dataclasses.fields(model) if f"`{f.name}`" not in text and f"[{f.name}]" not in text
    ]
    assert not missing


@pytest.mark.parametrize(
    ("app", "name"), [(hpcpanda.client.cli.app, "hpcpanda"), (hpcpanda_edge.cli.app, "hpcpanda-edge")]
)
def test_every_command_is_documented(app: typer.Typer, name: str) -> None:
    """A command that exists is on the command line's page."""
    text = (DOCS / "command-line.md").read_text()
    assert len(commands(typer.main.get_command(app), name)) > 3
    assert not [c for c in commands(typer.main.get_command(app), name) if f"`{c}`" not in text]
