"""The ``hpcpanda`` command. Exit status: 0 done, 1 an error told on stderr, 2 wrong usage, 3 the task did not end well."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hpcpanda
from hpcpanda.client import (
    admin_commands,
    dataset_commands,
    dispatcher_commands,
    edge_commands,
    payload_commands,
    report_commands,
    task_commands,
)
from hpcpanda.client.connection import (
    CA_FILE_VARIABLE,
    DISPATCHER_VARIABLE,
    TOKEN_FILE_VARIABLE,
    Connection,
)
from hpcpanda.client.login_commands import login, logout, whoami
from hpcpanda.client.output import printable
from hpcpanda.client.simulate_commands import simulate
from hpcpanda.domain.errors import HpcPandaError

app = typer.Typer(
    no_args_is_help=True,
    help="Backfill supercomputers with event-based science.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(task_commands.app, name="task")
app.add_typer(dataset_commands.app, name="dataset")
app.add_typer(edge_commands.app, name="edge")
app.add_typer(dispatcher_commands.app, name="dispatcher")
app.add_typer(payload_commands.app, name="payload")
app.add_typer(report_commands.app, name="report")
app.add_typer(admin_commands.app, name="admin")
app.command()(simulate)
app.command()(login)
app.command()(logout)
app.command()(whoami)


def _version(asked: bool) -> None:  # noqa: FBT001 - the callback's signature is typer's
    if asked:
        typer.echo(hpcpanda.__version__)
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    dispatcher: Annotated[
        str | None,
        typer.Option(
            help="Address of the dispatcher; this machine's if not said.",
            metavar="URL",
            envvar=DISPATCHER_VARIABLE,
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the bearer token.", envvar=TOKEN_FILE_VARIABLE)
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(help="Certificates (PEM) to believe instead of the system's.", envvar=CA_FILE_VARIABLE),
    ] = None,
    version: Annotated[  # noqa: ARG001, FBT002 - the callback acts on it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options for all commands."""
    context.obj = Connection(url=dispatcher, token_file=token_file, ca_file=ca_file)


def main() -> None:
    """Entry point: errors of the product become one line on stderr and exit status 1."""
    try:
        app()
    except HpcPandaError as problem:
        typer.echo(f"hpcpanda: {printable(str(problem))}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
