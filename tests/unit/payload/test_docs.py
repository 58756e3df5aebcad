"""The documents say what the code does."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

from pydantic import TypeAdapter

import hpcpanda.payload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload import InputSlice, RangeWork
from hpcpanda.payload.check import check_payload
from hpcpanda.payload.forms import command, process

DOCS = Path(__file__).parents[3] / "docs"


def test_reference_names_everything_a_payload_meets() -> None:
    """Every export, field, placeholder and limit stands in the reference."""
    text = (DOCS / "reference" / "payload.md").read_text()
    names = [*hpcpanda.payload.__all__, *(f.name for c in (RangeWork, InputSlice) for f in fields(c))]
    names += ["{first}", "{last}", "{count}", "{seed}", "{output}", *command._OF_INPUT]
    for name in names:
        assert re.search(rf"`[^`]*{re.escape(name)}\b|`{re.escape(name)}`", text), name
    assert f"at most {process.MAX_REPLY} bytes" in text
    assert f"{process.BYE_SECONDS:.0f} seconds later is killed" in text


def test_first_payload_of_the_how_to_passes_the_check(tmp_path: Path) -> None:
    """The how-to's first module and task file work as they stand."""
    text = (DOCS / "how-to" / "write-a-payload.md").read_text()
    blocks = dict(re.findall(r"```\w+\n# (\S+)\n(.*?)```", text, re.DOTALL))
    (tmp_path / "smear.py").write_text(blocks["smear.py"])
    document = tomllib.loads(blocks["task.toml"])
    document["payload"]["python_path"] = [str(tmp_path)]
    report = check_payload(TypeAdapter(TaskSpec).validate_python(document), events=30)
    assert report.ok
    assert report.warnings == ()
