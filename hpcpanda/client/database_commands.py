"""``hpcpanda dispatcher doctor|backup|restore``: look after a dispatcher's database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from hpcpanda.client.cli_context import Printed
from hpcpanda.client.connection import state_root
from hpcpanda.client.output import Output, OutputMode

if TYPE_CHECKING:
    from hpcpanda.dispatcher.backup import BackupFile
    from hpcpanda.dispatcher.settings import DispatcherSettings

State = Annotated[
    Path | None, typer.Option(help="State folder; a folder in your home when not given.", file_okay=False)
]


def doctor(state: State = None, output: Printed = OutputMode.TABLE) -> None:
    """Look the database over and change nothing in it; status 1 when something is not as it should be."""
    from hpcpanda.dispatcher.doctor import examine

    found = asyncio.run(examine(_settings(state)))
    table = Table("", "WHAT", "FOUND", box=None)
    for finding in found:
        table.add_row("ok" if finding.fine else "WRONG", finding.what, finding.says)
    Output(output).result(found, table=table, quiet=[f.what for f in found if not f.fine])
    if not all(finding.fine for finding in found):
        raise typer.Exit(1)


def backup(
    file: Annotated[Path, typer.Argument(help="File to write; must not be there yet.", dir_okay=False)],
    state: State = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Write all of the database, as of now, to a file; dispatchers may go on working."""
    from hpcpanda.dispatcher.run import back_up

    _print(back_up(_settings(state), file), "holds", output)


def restore(
    file: Annotated[Path, typer.Argument(help="File that 'backup' has written.", dir_okay=False)],
    state: State = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Fill an empty database from a backup, of either kind of database."""
    from hpcpanda.dispatcher.run import restore as fill

    _print(fill(_settings(state), file), "has been restored:", output)


def _settings(state: Path | None) -> DispatcherSettings:
    from hpcpanda.dispatcher.settings import load_settings

    return load_settings(state=state or state_root() / "dispatcher")


def _print(told: BackupFile, verb: str, output: OutputMode) -> None:
    line = f"{told.path} {verb} {told.rows} rows of schema version {told.schema}, {told.bytes} bytes"
    Output(output).result(told, table=line, quiet=[told.path])
