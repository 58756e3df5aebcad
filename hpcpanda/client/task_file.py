"""Read a task file: TOML with the fields of :class:`~hpcpanda.domain.task.TaskSpec`."""

from __future__ import annotations

import glob
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hpcpanda.dispatcher.wording import field_errors
from hpcpanda.domain.errors import HpcPandaError, InvalidValue
from hpcpanda.domain.inputs import InputFile, InputFormat
from hpcpanda.domain.task import TaskSpec

_SPEC: TypeAdapter[TaskSpec] = TypeAdapter(TaskSpec)


def load_task(path: Path | str) -> TaskSpec:
    """The task that a file describes.

    Input files may be given as plain paths, as patterns of :mod:`glob`, or without ``events``: they are counted now.
    A pattern stands for the files that match it now, in the order of their paths. Their paths and
    those of ``payload.python_path`` and ``payload.inputs`` are taken relative to the folder of the task file, which
    is also what ``{here}`` stands for in the command, environment and inputs of a payload, and in ``container``.

    Raises:
        InvalidValue: the file cannot be read or a field is wrong; the message names both.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidValue(str(path), f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidValue(str(path), f"is not TOML: {error}") from error
    folder = path.absolute().parent
    try:
        _resolve_payload(document.get("payload"), folder)
        if isinstance(document.get("container"), str):
            document["container"] = document["container"].replace("{here}", str(folder))
        _describe_inputs(document.get("inputs"), folder)
        return _SPEC.validate_python(document)
    except ValidationError as error:
        lines = field_errors(error.errors(include_url=False), TaskSpec)
        raise InvalidValue(str(path), "; ".join(lines)) from error
    except HpcPandaError as error:
        raise InvalidValue(str(path), str(error)) from error


def _resolve_payload(payload: object, folder: Path) -> None:
    """Make paths absolute, and fill in ``{here}`` in words, variables and inputs of commands."""
    if not isinstance(payload, dict):
        return

    def here(value: object) -> object:
        return value.replace("{here}", str(folder)) if isinstance(value, str) else value

    match payload.get("python_path"):
        case list(entries):
            payload["python_path"] = [str(folder / e) if isinstance(e, str) else e for e in entries]
    match payload.get("command"):
        case list(words):
            payload["command"] = [here(word) for word in words]
    match payload.get("environment"):
        case dict(values):
            payload["environment"] = {name: here(value) for name, value in values.items()}
    match payload.get("inputs"):
        case list(paths):
            payload["inputs"] = [str(folder / p) if isinstance(p, str) else p for p in map(here, paths)]


def _describe_inputs(inputs: object, folder: Path) -> None:
    """Make paths absolute and count the files that do not say how many events they hold."""
    if not isinstance(inputs, dict) or not isinstance(inputs.get("files"), list):
        return
    inputs["files"] = [
        _described(file, inputs, folder) for entry in inputs["files"] for file in _matching(entry, folder)
    ]


def _matching(entry: object, folder: Path) -> Iterator[object]:
    """What an entry stands for: itself, unless it is a pattern and not the name of a file."""
    if not isinstance(entry, str) or not glob.has_magic(entry) or (folder / entry).exists():
        yield entry
        return
    found = sorted(glob.glob(entry, root_dir=folder, recursive=True))  # noqa: PTH207 - patterns may be absolute
    files = [name for name in found if (folder / name).is_file()]
    if not files:
        raise InvalidValue("inputs.files", f"no file matches {entry!r} in {folder}")
    yield from files


def _described(file: object, inputs: dict[str, Any], folder: Path) -> object:
    entry = {"path": file} if isinstance(file, str) else file
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        return file
    absolute = str(folder / entry["path"])
    if "events" in entry:
        return {**entry, "path": absolute}
    if set(entry) != {"path"}:
        raise InvalidValue("inputs.files", f"{entry['path']}: say 'events' too, or nothing but 'path'")
    return _count(absolute, inputs)


def _count(path: str, inputs: dict[str, Any]) -> InputFile:
    from hpcpanda.payload.inputs import describe

    try:
        kind = InputFormat(str(inputs.get("format")))
    except ValueError:
        known = ", ".join(InputFormat)
        raise InvalidValue("inputs.format", f"{inputs.get('format')!r} is none of {known}") from None
    return describe(path, kind, inputs.get("container"))
