"""The documentation names everything there is, and what it points to is there."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import hpcpanda_edge.cli
import pytest
import typer
from typer.core import TyperGroup

import hpcpanda.client.cli
from hpcpanda.brokerage.shares import Boost, Quota, Share, SharePlan, Weights
from hpcpanda.domain import inputs, jobs, outputs, payloads, site, task
from hpcpanda.domain.requirements import Requirements
from hpcpanda.domain.splitting import JobSplit
from hpcpanda.events.bundle import BundleFile, BundleHead, JobReport
from hpcpanda.events.journal import ENTRY, JournalHeader
from hpcpanda.planning.actions import Reason

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "reference"
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")})


def commands(command: object, name: str) -> list[str]:
    if isinstance(command, TyperGroup):
        return [c for n, sub in command.commands.items() for c in commands(sub, f"{name} {n}")]
    return [name]


@pytest.mark.parametrize(
    ("page", "model"),
    [
        *(("task-file.md", m) for m in (task.TaskSpec, payloads.CallablePayload, payloads.CommandPayload, payloads.ProcessPayload)),
        *(("task-file.md", m) for m in (inputs.Inputs, inputs.InputFile, outputs.Output, task.Resources, task.RangePolicy)),
        *(("task-file.md", m) for m in (task.LossPolicy, jobs.JobPayload, jobs.JobRequest, task.Staging)),
        *(("site-file.md", m) for m in (site.Site, site.NodeSettings, site.SchedulerSettings)),
        *(("site-file.md", m) for m in (site.LauncherSettings, site.AllocationSettings, site.LimitSettings)),
        *(("site-file.md", m) for m in (site.ContainerSettings, site.QueueLimits)),
        ("task-file.md", Requirements),
        *((page, JobSplit) for page in ("task-file.md", "splitting.md")),
        *(("shares-file.md", m) for m in (SharePlan, Share, Quota, Boost, Weights)),
        *(("journal.md", m) for m in (JournalHeader, BundleHead, BundleFile, JobReport)),
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


def models(module: object) -> set[type]:
    """Data classes of a module that users fill in."""
    found = {m for m in vars(module).values() if isinstance(m, type) and dataclasses.is_dataclass(m)}
    return {m for m in found if m.__module__ == module.__name__}  # type: ignore[attr-defined]


def test_no_model_of_a_file_is_forgotten() -> None:
    """A part of a task file or site file that is added is documented, or named here as none of a user's."""
    (mark,) = (m for m in test_every_field_is_documented.pytestmark if m.name == "parametrize")  # type: ignore[attr-defined]
    documented = {model for _, model in mark.args[1]}
    modules = (task, payloads, inputs, jobs, outputs, site)
    assert set().union(*map(models, modules)) == {
        m for m in documented if m.__module__ in {module.__name__ for module in modules}
    }


def test_an_entry_of_a_journal_is_documented_to_the_byte() -> None:
    """Offsets and lengths of the table are those of the format."""
    text = (DOCS / "journal.md").read_text()
    assert ENTRY.fields is not None
    told = {
        (int(at), int(size)) for at, size in re.findall(r"^\| (\d+) \| (\d+) \| [uf]\d+ ", text, re.MULTILINE)
    }
    assert told == {(int(offset), kind.itemsize) for kind, offset, *_ in ENTRY.fields.values()}


def test_every_reason_is_documented() -> None:
    """What `hpcpanda-edge status` may say of a task is on the edge's page."""
    text = (ROOT / "docs/how-to/run-an-edge.md").read_text()
    assert not [r.value for r in Reason if f"`{r.value}`" not in text]


def test_every_site_file_is_listed() -> None:
    """And every listed one is there."""
    section = (DOCS / "site-file.md").read_text().split("## Files that come with hpcpanda")[1]
    assert set(re.findall(r"`([\w-]+\.toml)`", section)) == {
        p.name for p in (ROOT / "site-configs").glob("*.toml")
    }


# ---- links ----


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links and pictures name a file or folder that is there, and a heading of it."""
    missing = []
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (heading and heading not in anchors(target)):
            missing.append(link)
    assert not missing


def test_every_page_is_in_the_index() -> None:
    """A page that nobody links to is not read."""
    index = (ROOT / "docs/README.md").read_text()
    pages = {str(p.relative_to(ROOT / "docs")) for p in PAGES if p.is_relative_to(ROOT / "docs")} - {
        "README.md"
    }
    assert pages == set(re.findall(r"\]\(([^)]+\.md)\)", index))


def test_every_example_is_in_their_index() -> None:
    """As are examples."""
    index = (ROOT / "examples/README.md").read_text()
    folders = {p.parent.name for p in (ROOT / "examples").glob("*/README.md")}
    assert folders == set(re.findall(r"\| \[(\w+)\]\(\1\)", index))
