"""``hpcpanda dispatcher ...``: run the embedded dispatcher, make tokens for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hpcpanda.client.cli_context import Printed
from hpcpanda.client.connection import state_root
from hpcpanda.client.database_commands import backup, doctor, restore
from hpcpanda.client.output import Output, OutputMode

app = typer.Typer(
    no_args_is_help=True, help="Run a dispatcher, make tokens for it, and look after its database."
)
app.command()(doctor)
app.command()(backup)
app.command()(restore)

State = Annotated[
    Path | None, typer.Option(help="State folder; a folder in your home when not given.", file_okay=False)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeToken:
    """A new token."""

    scope: str
    name: str
    token: str


@app.command()
def run(
    state: State = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 0,
    edge: Annotated[str, typer.Option(help="Edge for which a first token is made.")] = "laptop",
) -> None:
    """Run a dispatcher in the foreground; its address and tokens are left in the state folder."""
    from hpcpanda.dispatcher.run import serve
    from hpcpanda.dispatcher.settings import load_settings

    folder = state or state_root() / "dispatcher"
    settings = load_settings(state=folder, host=host, port=port, edge_name=edge)
    typer.echo(f"state folder: {folder}", err=True)
    typer.echo(f"token of users: {settings.user_token_file}", err=True)
    typer.echo(f"token of edge {edge!r}: {settings.edge_token_file(edge)}", err=True)
    if settings.identity is None:
        typer.echo(
            "log in: on this machine nothing is to be done; elsewhere 'hpcpanda --dispatcher URL --token-file FILE'",
            err=True,
        )
    else:
        typer.echo("log in: 'hpcpanda --dispatcher URL login'", err=True)
    serve(settings)


@app.command()
def token(
    scope: Annotated[str, typer.Argument(help="'user', 'edge', 'admin' or 'monitor'.")],
    name: Annotated[str, typer.Argument(help="Name of the user or the edge.")],
    state: State = None,
    days: Annotated[
        float | None, typer.Option(help="It ends after so many days; never, unless said.", min=0.01)
    ] = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Make a token and print it; it cannot be shown again."""
    from hpcpanda.dispatcher.run import create_token
    from hpcpanda.dispatcher.settings import load_settings

    settings = load_settings(state=state or state_root() / "dispatcher")
    made = MadeToken(scope=scope, name=name, token=create_token(settings, scope, name, days=days))
    Output(output).result(made, table=made.token, quiet=[made.token])
