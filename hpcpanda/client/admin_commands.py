"""``hpcpanda admin ...``: what only administrators of a dispatcher may do."""

from __future__ import annotations

from typing import Annotated

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.output import OutputMode, table, when
from hpcpanda.client.quarantine_commands import lift, quarantine
from hpcpanda.dispatcher.wording import counted

app = typer.Typer(
    no_args_is_help=True, help="See who did what, take tokens back, lift quarantines. For administrators."
)
app.command()(quarantine)
app.command()(lift)


@app.command()
def audit(
    context: typer.Context,
    who: Annotated[str | None, typer.Option(help="Only what user:NAME, or edge:NAME, did.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many entries.", min=1, max=1000)] = 100,
    before: Annotated[int | None, typer.Option(help="Next page: entries below this number.")] = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """List who did what, newest first."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        page = client.audit(who=who, before=before, limit=limit)
    rows = [(str(e.entry), when(e.at), e.who, e.did, e.target, e.address) for e in page.entries]
    shown = table("entry", "when", "who", "did", "to", "from", rows=rows)
    cli.output.result(page, table=shown, quiet=[e.entry for e in page.entries])
    if page.next_before is not None:
        cli.output.say(f"more: --before {page.next_before}")


@app.command()
def revoke(
    context: typer.Context,
    kind: Annotated[str, typer.Argument(help="'user', 'edge', 'admin' or 'monitor'.")],
    name: Annotated[str, typer.Argument(help="Name of the user or the edge.")],
    output: Printed = OutputMode.TABLE,
) -> None:
    """Take back all tokens of a user or an edge, and end the logins in browsers."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        gone = client.revoke_tokens(kind, name)
    said = (
        f"{counted(gone.tokens, 'token')} and {counted(gone.sessions, 'session')} of {kind} {name} taken back"
    )
    cli.output.result(gone, table=said, quiet=[gone.tokens + gone.sessions])
