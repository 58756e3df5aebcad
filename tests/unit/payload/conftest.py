"""Payload modules and specifications made up on the spot."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.payloads import CallablePayload, CommandPayload, Payload, ProcessPayload
from hpcpanda.domain.task import TaskSpec

_numbers = itertools.count()

SpecOf = Callable[..., TaskSpec]


def spec_of(payload: Payload, **fields: Any) -> TaskSpec:
    """A task of plain bytes unless ``output`` says otherwise."""
    fields.setdefault("output", Output(file="out", format=OutputFormat.CONCAT))
    if "inputs" not in fields:
        fields.setdefault("events", 1000)
    return TaskSpec(name="t", payload=payload, **fields)


@pytest.fixture(autouse=True)
def _clean_imports() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("payload_of_test_"):
            del sys.modules[name]


@pytest.fixture
def callable_spec(tmp_path: Path) -> SpecOf:
    """``callable_spec(source, setup=False, settings=..., **task fields)``: a task that calls ``call``."""

    def make(
        source: str, *, setup: bool = False, settings: dict[str, Any] | None = None, **fields: Any
    ) -> TaskSpec:
        module = f"payload_of_test_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(source)
        payload = CallablePayload(
            call=f"{module}:call",
            setup=f"{module}:setup" if setup else None,
            settings=settings or {},
            python_path=(str(tmp_path),),
        )
        return spec_of(payload, **fields)

    return make


@pytest.fixture
def command_spec() -> SpecOf:
    """``command_spec(*words, environment=..., **task fields)``."""

    def make(*words: str, environment: dict[str, str] | None = None, **fields: Any) -> TaskSpec:
        return spec_of(CommandPayload(command=words, environment=environment or {}), **fields)

    return make


@pytest.fixture
def process_spec(tmp_path: Path) -> SpecOf:
    """``process_spec(source, **task fields)``: a Python process with ``ask()`` and ``reply(text)`` at hand."""
    prelude = (
        "import os, sys, signal\n"
        "requests = os.fdopen(int(os.environ['HPCPANDA_IN']))\n"
        "out = int(os.environ['HPCPANDA_OUT'])\n"
        "def ask():\n"
        "    line = requests.readline()\n"
        "    return line.rstrip('\\n').split(' ', 4) if line else None\n"
        "def reply(text): os.write(out, text.encode())\n"
        "def write(path, text): open(path, 'w').write(text)\n"
    )

    def make(source: str, **fields: Any) -> TaskSpec:
        script = tmp_path / f"process{next(_numbers)}.py"
        script.write_text(prelude + source)
        return spec_of(ProcessPayload(command=(sys.executable, "-SE", str(script))), **fields)

    return make
