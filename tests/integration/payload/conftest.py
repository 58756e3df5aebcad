"""Real data files and the example tasks."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from hpcpanda.domain.inputs import InputFormat
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.inputs import describe

REPOSITORY = Path(__file__).parents[3]
EXAMPLES = REPOSITORY / "examples"
DATA = Path(os.environ.get("HPCPANDA_TEST_DATA", REPOSITORY.parent / "shared" / "data"))

DataFile = Callable[[str], Path]
Example = Callable[..., TaskSpec]


@pytest.fixture
def data_file() -> DataFile:
    """``data_file(name)``: path of a real data file; skips the test where it is absent."""

    def find(name: str) -> Path:
        path = DATA / name
        if not path.is_file():
            pytest.skip(f"no {name} in {DATA}; set HPCPANDA_TEST_DATA")
        return path

    return find


@pytest.fixture
def example() -> Iterator[Example]:
    """``example(folder, input file)``: the task of an example, as its task file says."""
    path, modules = list(sys.path), set(sys.modules)

    def load(folder: str, data: Path | None = None) -> TaskSpec:
        here = EXAMPLES / folder
        document = tomllib.loads((here / "task.toml").read_text().replace("{here}", str(here)))
        if "python_path" in document["payload"]:
            document["payload"]["python_path"] = [
                str(here / folder) for folder in document["payload"]["python_path"]
            ]
        if data is not None:
            inputs = document["inputs"]
            inputs["files"] = [describe(str(data), InputFormat(inputs["format"]), inputs.get("container"))]
        return TypeAdapter(TaskSpec).validate_python(document)

    yield load
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(EXAMPLES) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
