"""``hpcpanda admin quarantine|lift``"""

from __future__ import annotations

from typing import Annotated

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.output import OutputMode, table, when


def quarantine(context: typer.Context, output: Printed = OutputMode.TABLE) -> None:
    """List the sites and nodes that are given nothing for a while, and why."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        found = client.quarantines()
    rows = [(q.edge, q.node or "(all)", when(q.until), q.why) for q in found]
    shown = table("edge", "node", "until", "why", rows=rows)
    names = [q.edge if q.node is None else f"{q.edge} {q.node}" for q in found]
    cli.output.result(found, table=shown, quiet=names)


def lift(
    context: typer.Context,
    edge: Annotated[str, typer.Argument(help="Edge of the site.")],
    node: Annotated[
        str | None, typer.Option(help="Only this node; the site and all its nodes if none.")
    ] = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Give a site, or a node of one, work again that was in quarantine."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        lifted = client.lift_quarantine(edge, node=node)
    what = f"edge {edge} and all its nodes" if node is None else f"node {node} of edge {edge}"
    cli.output.result(lifted, table=f"{what} may be used again", quiet=[node or edge])
