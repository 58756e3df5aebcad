"""Reading task files."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcpanda.client.task_file import load_task
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import InputFile, InputFormat
from hpcpanda.domain.payloads import CallablePayload

GOOD = """
name = "pi"
events = 1000

[payload]
call = "pi:throw"
python_path = ["code", "/abs"]
settings = { scale = 1.0, label = "x", deep = true }

[output]
file = "pi.h5"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "task.toml"
    file.write_text(text)
    return file


def test_a_task_file_is_a_task(tmp_path: Path) -> None:
    """Fields, types of settings and relative paths arrive as meant."""
    spec = load_task(write(tmp_path, GOOD))
    assert isinstance(spec.payload, CallablePayload)
    assert spec.payload.python_path == (str(tmp_path / "code"), "/abs")
    assert spec.payload.settings == {"scale": 1.0, "label": "x", "deep": True}
    assert spec.events == 1000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('name = "pi"', 'name = "p i"'), "name: "),
        (("events = 1000", "events = 0"), "events: 0 is outside"),
        (("events = 1000", "event = 1000"), "event: there is no such field; did you mean events?"),
        (
            ("events = 1000", "walltime = 60"),
            "walltime: there is no such field; did you mean job.walltime_s?",
        ),
        (
            ('file = "pi.h5"', 'file = "pi.h5"\nseed = 3'),
            "output.seed: there is no such field; did you mean seed?",
        ),
        (('file = "pi.h5"', 'file = "pi.h5"\nqwertz = 3'), "output.qwertz: there is no such field"),
        (('["code", "/abs"]', '"code"'), 'payload.python_path: must be a list, such as ["one", "two"]'),
        (('[output]\nfile = "pi.h5"', "[output.file]"), "output.file: "),
        (("events = 1000", "events = 1000\nloss = 3"), "loss: must be a table, as [loss]"),
        (('call = "pi:throw"', 'call = "pi"'), "payload.call: "),
        (("[output]", "[output"), "is not TOML"),
    ],
)
def test_errors_name_file_and_field(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    """A wrong task file is refused with its path and the field that is wrong."""
    file = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(InvalidValue) as caught:
        load_task(file)
    assert str(file) in str(caught.value)
    assert says in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The path that cannot be read is in the message."""
    with pytest.raises(InvalidValue, match=r"nowhere\.toml: cannot be read"):
        load_task(tmp_path / "nowhere.toml")


INPUTS = GOOD.replace("events = 1000\n", "").replace(
    "[output]", '[inputs]\nformat = "lhe"\nfiles = {files}\n\n[output]'
)


def test_files_with_known_events_are_taken_as_said(tmp_path: Path) -> None:
    """A file that says how many events it holds is not opened; its path is made absolute."""
    spec = load_task(write(tmp_path, INPUTS.replace("{files}", '[{path = "a.lhe", events = 5}]')))
    assert spec.inputs is not None
    assert spec.inputs.files == (InputFile(path=str(tmp_path / "a.lhe"), events=5),)


def test_files_without_events_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain paths and tables without a count are described by looking into the files."""

    def describe(path: str, kind: InputFormat, container: str | None) -> InputFile:
        assert (kind, container) == (InputFormat.LHE, None)
        return InputFile(path=path, events=7, clusters=(3,))

    monkeypatch.setattr("hpcpanda.payload.inputs.describe", describe)
    spec = load_task(write(tmp_path, INPUTS.replace("{files}", '["a.lhe", {path = "b.lhe"}]')))
    assert spec.event_count == 14
    assert spec.inputs is not None
    assert [file.path for file in spec.inputs.files] == [str(tmp_path / n) for n in ("a.lhe", "b.lhe")]


PLAIN = INPUTS.replace('"lhe"', '"file"')


def test_a_pattern_stands_for_the_files_that_match(tmp_path: Path) -> None:
    """In the order of their paths, without folders; whole files are an entry each, and an empty one is one, too."""
    for name in ("b 1.txt", "b 0.txt", "a/deep.txt", "c[1].txt", "other.dat"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x" * len(name))
    (tmp_path / "b 2.txt").touch()
    (tmp_path / "b 3.txt").mkdir()
    spec = load_task(write(tmp_path, PLAIN.replace("{files}", '["b*.txt", "c[1].txt", "**/deep.txt"]')))
    assert spec.inputs is not None
    names = ["b 0.txt", "b 1.txt", "b 2.txt", "c[1].txt", "a/deep.txt"]
    assert spec.inputs.files == tuple(
        InputFile(path=str(tmp_path / n), events=1, size=len(n) if n != "b 2.txt" else None) for n in names
    )


def test_a_pattern_that_nothing_matches_is_refused(tmp_path: Path) -> None:
    """Rather than a task without inputs: the pattern and the folder are named."""
    with pytest.raises(InvalidValue, match=r"no file matches 'run\*\.txt' in /"):
        load_task(write(tmp_path, PLAIN.replace("{files}", '["run*.txt"]')))
