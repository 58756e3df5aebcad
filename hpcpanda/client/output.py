"""What commands print: tables for people, JSON for programs, or only the essential; one interface for all commands."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table


class OutputMode(StrEnum):
    """How results are printed."""

    TABLE = "table"
    """For people."""
    JSON = "json"
    """The API's own answer, one JSON document."""
    QUIET = "quiet"
    """Identifiers or paths only, one a line."""


_FILE_WIDTH = 500
"""Columns of output that is no terminal: paths and digests stay whole."""


class Output:
    """Prints results in one of the modes; everything else goes to stderr."""

    def __init__(self, mode: OutputMode) -> None:
        self.mode = mode
        self.console = plain_console()
        self.errors = plain_console(stderr=True)

    def result(self, value: object, *, table: Table | str, quiet: Sequence[object]) -> None:
        """Print one command's result."""
        match self.mode:
            case OutputMode.JSON:
                adapter: TypeAdapter[Any] = TypeAdapter(type(value))
                sys.stdout.write(adapter.dump_json(value, indent=2).decode() + "\n")
            case OutputMode.QUIET:
                sys.stdout.writelines(f"{line}\n" for line in quiet)
            case OutputMode.TABLE:
                shown = printable(table) if isinstance(table, str) else table
                self.console.print(shown, soft_wrap=isinstance(table, str))

    def say(self, text: str) -> None:
        """Print a line that is not part of the result."""
        self.errors.print(printable(text), soft_wrap=True)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Characters that make a terminal do something, but for tabs and new lines."""


def printable(text: str) -> str:
    """What a payload or a user has said, such that a terminal shows it and does not obey it: codes take the place of escapes."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that prints what payloads and users say as it is: ``[b]`` and ``:cat:`` are no commands."""
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    return console


def table(*columns: str, rows: Sequence[Sequence[object]], title: str | None = None) -> Table:
    """A plain table; numbers are aligned to the right."""
    made = Table(box=None, pad_edge=False, title=title, title_justify="left", header_style="bold")
    numeric = [bool(rows) and all(isinstance(r[i], int | float) for r in rows) for i in range(len(columns))]
    for name, right in zip(columns, numeric, strict=True):
        made.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(f"{cell:,}" if isinstance(cell, int) else printable(str(cell)) for cell in row))
    return made


def when(unix_seconds: float) -> str:
    """A time as people say it, the same everywhere: ``2026-12-24 18:00:00 UTC``."""
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    """Seconds as people say them: ``42 s``, ``3 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def rate(per_second: float, unit: str) -> str:
    """A rate as people say it: ``1,200 events/s``, ``30 jobs/min``, ``2 jobs/h``."""
    for seconds, name in ((1, "s"), (60, "min")):
        if per_second * seconds >= 1 or not per_second:
            return f"{per_second * seconds:,.0f} {unit}s/{name}"
    return f"{per_second * 3600:,.0f} {unit}s/h"
