"""``hpcpanda edge ...``: the sites, as the dispatcher knows them."""

from __future__ import annotations

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.output import OutputMode, table, when

app = typer.Typer(no_args_is_help=True, help="See which sites there are.")


@app.callback()
def edge() -> None:
    """See which sites there are."""


@app.command(name="list")
def list_edges(context: typer.Context, output: Printed = OutputMode.TABLE) -> None:
    """List the edges that have registered: whether they are alive, when they were heard of, what they offer."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        found = client.edges()
    rows = [
        (e.name, "alive" if e.alive else "silent", when(e.last_seen), e.cores, e.version, e.instance)
        for e in found
    ]
    shown = table("edge", "is", "last heard of", "cores", "version", "instance", rows=rows)
    cli.output.result(found, table=shown, quiet=[e.name for e in found])
