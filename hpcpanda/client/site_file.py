"""Read a site file: TOML with the fields of :class:`hpcpanda.domain.site.Site`."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hpcpanda.dispatcher.wording import plainly
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import Site

SITE: TypeAdapter[Site] = TypeAdapter(Site)


def load_site(path: Path | str, *, spool: Path | str | None = None, elsewhere: bool = False) -> Site:
    """The site that a file describes, with ``~`` and ``$VARIABLES`` of spool, account and interpreter filled in.

    Args:
        path: the TOML file.
        spool: use this spool folder instead of the file's.
        elsewhere: the machine is only to be thought about, as by the simulator: variables need not be set here, and
            the spool is ``/``.

    Raises:
        InvalidValue: the file cannot be read or a field is wrong; the message names file and field.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidValue(str(path), f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InvalidValue(str(path), f"is not TOML: {error}") from error
    if elsewhere:
        _forget_variables(document)
    elif spool is not None:
        document["spool"] = str(Path(spool).absolute())
    try:
        _fill_in(document, "spool")
        if isinstance(scheduler := document.get("scheduler"), dict):
            _fill_in(scheduler, "account", within="scheduler.")
            _fill_in(scheduler, "python", within="scheduler.")
        return SITE.validate_python(document)
    except ValidationError as error:
        problems = "; ".join(dict.fromkeys(_lines(error)))
        raise InvalidValue(str(path), problems) from error
    except InvalidValue as error:
        raise InvalidValue(str(path), str(error)) from error


def _forget_variables(document: dict[str, Any]) -> None:
    """Leave out what would have to be filled in."""
    document["spool"] = "/"
    if isinstance(scheduler := document.get("scheduler"), dict):
        for field in ("account", "python"):
            if isinstance(text := scheduler.get(field), str) and text.startswith(("$", "~")):
                del scheduler[field]


def _fill_in(table: dict[str, Any], field: str, *, within: str = "") -> None:
    """Put values in the place of ``~`` and ``$VARIABLES`` of one field, if the table has it."""
    text = table.get(field)
    if not isinstance(text, str):
        return
    filled = os.path.expandvars(str(Path(text).expanduser()) if text.startswith("~") else text)
    if missing := re.search(r"\$\{?(\w+)", filled):
        raise InvalidValue(within + field, f"the variable {missing[1]} in {text!r} is not set")
    table[field] = filled


def _lines(error: ValidationError) -> Iterator[str]:
    """One line a wrong field."""
    for problem in error.errors(include_url=False):
        yield _line(problem["loc"], problem)


def _line(location: tuple[int | str, ...], problem: Mapping[str, Any]) -> str:
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, InvalidValue):
        return str(cause)
    field = ".".join(map(str, location)) or "the file"
    return f"{field}: {plainly(problem, field, Site)}"
