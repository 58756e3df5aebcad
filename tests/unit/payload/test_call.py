"""The callable form: what user code gets, and what becomes of everything it may do wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.payload import InputSlice
from hpcpanda.payload.forms import prepare

from .conftest import SpecOf, spec_of


def run(spec: Any, folder: Path, first: int = 3, last: int = 5) -> Any:
    return prepare(spec).runner(folder).run(first, last)


def test_call_gets_range_seed_settings_and_state(callable_spec: SpecOf, tmp_path: Path) -> None:
    """The function sees its range, the task's seed, the settings, and what the set-up returned."""
    spec = callable_spec(
        "def setup(settings): return ['made from', settings['x']]\n"
        "def call(work): return (work.first, work.last, work.seed, dict(work.settings), work.state, work.inputs)\n",
        setup=True,
        settings={"x": 1.5},
        seed=9,
    )
    assert run(spec, tmp_path) == (3, 5, 9, {"x": 1.5}, ["made from", 1.5], ())


def test_call_gets_slices_of_inputs(callable_spec: SpecOf, tmp_path: Path) -> None:
    """With inputs, the function sees which entries of which file its range covers."""
    files = (InputFile(path="/a", events=4), InputFile(path="/b", events=4))
    spec = callable_spec(
        "def call(work): return work.inputs", inputs=Inputs(format=InputFormat.LHE, files=files)
    )
    assert run(spec, tmp_path, 5, 7) == (InputSlice("/b", 1, 3, 4),)


def test_settings_cannot_be_changed_from_range_to_range(callable_spec: SpecOf, tmp_path: Path) -> None:
    """Settings are read-only: a range that writes to them fails instead of changing the next one."""
    spec = callable_spec("def call(work): work.settings['x'] = 2", settings={"x": 1})
    with pytest.raises(PayloadFailed, match="does not support item assignment"):
        run(spec, tmp_path)


def test_python_path_is_searched_in_order_and_first(tmp_path: Path) -> None:
    """The folders of python_path come before everything else, in the order given."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "payload_of_test_order.py").write_text(f"def call(work): return b'{name}'")
    folders = (str(tmp_path / "two"), str(tmp_path / "one"))
    payload = CallablePayload(call="payload_of_test_order:call", python_path=folders)
    assert run(spec_of(payload), tmp_path) == b"two"


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_module_at_all\n", "no_such_module_at_all"),
        ("def call(work)\n", "SyntaxError"),
        ("raise SystemExit(3)\n", "SystemExit: 3"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("x = 1\n", "has no 'call'"),
        ("call = 7\n", "not a function"),
        ("def call(w): pass\ndef setup(s): raise SystemExit('enough')\n", "SystemExit: enough"),
        ("def call(w): pass\ndef setup(s): raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("def call(w): pass\ndef setup(s): return s['absent']\n", "KeyError: 'absent'"),
        ("def call(w): pass\ndef setup(): return 1\n", "TypeError"),
    ],
)
def test_prepare_turns_everything_into_a_payload_failure(
    callable_spec: SpecOf, source: str, told: str
) -> None:
    """Whatever a module does on import or in its set-up, the failure says what it was."""
    with pytest.raises(PayloadFailed) as failure:
        prepare(callable_spec(source, setup="setup" in source))
    assert told in str(failure.value)


def test_missing_module_is_named() -> None:
    """A module that is not there is named, with the field that asks for it."""
    with pytest.raises(PayloadFailed, match=r"payload\.call: module 'payload_of_test_absent'"):
        prepare(spec_of(CallablePayload(call="payload_of_test_absent:call")))


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('bad event')", "ValueError: bad event"),
        ("raise SystemExit", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise MemoryError", "MemoryError"),
        ("return call(work)", "RecursionError"),
        (
            "class E(Exception):\n        def __str__(self): return 1 / 0\n    raise E",
            "message cannot be shown",
        ),
        ("raise ValueError('x' * 10**7)", "ValueError: xxx"),
        ("raise ValueError('a\\0b\\x1b[31m')", "a?b?[31m"),
    ],
)
def test_run_turns_everything_into_a_short_payload_failure(
    callable_spec: SpecOf, tmp_path: Path, body: str, told: str
) -> None:
    """Whatever the function raises, the failure names it, the range, and stays short; the runner lives on."""
    runner = prepare(callable_spec(f"def call(work):\n    if work.first == 0: return b'fine'\n    {body}\n"))
    made = runner.runner(tmp_path)
    with pytest.raises(PayloadFailed) as failure:
        made.run(3, 5)
    assert told in str(failure.value)
    assert "events [3, 5)" in str(failure.value)
    assert len(str(failure.value)) < 2200
    assert made.run(0, 1) == b"fine"


def test_failure_shows_lines_of_user_code_only(callable_spec: SpecOf, tmp_path: Path) -> None:
    """The traceback in a failure ends in the user's line and does not pass through the product."""
    spec = callable_spec("def inner():\n    return 1 / 0  # here\ndef call(work):\n    return inner()\n")
    with pytest.raises(PayloadFailed) as failure:
        run(spec, tmp_path)
    assert str(failure.value).endswith("in inner: return 1 / 0  # here")
    assert "in call: return inner()" in str(failure.value)
    assert "hpcpanda/payload/forms" not in str(failure.value)
