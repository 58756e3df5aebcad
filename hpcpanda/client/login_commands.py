"""``hpcpanda login``, ``logout`` and ``whoami``."""

from __future__ import annotations

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.login import DeviceLogin
from hpcpanda.client.output import OutputMode, duration, table


def login(context: typer.Context) -> None:
    """Log in at the dispatcher's identity provider, with a browser on any machine."""
    cli = CliContext.of(context, OutputMode.TABLE)
    connection = cli.connection
    with connection.open_unknown() as client:
        provider = client.identity_provider()
    attempt = DeviceLogin(connection.address(), provider, ca_file=connection.ca_file)
    code = attempt.begin()
    typer.echo(f"open {code.complete_address or code.address}\nand confirm the code {code.user_code}")
    brought = attempt.finish(code)
    with connection.credentials().alone():
        connection.credentials().write(brought)
    with connection.open() as client:
        me = client.whoami()
    groups = ", ".join(me.groups) or "none"
    typer.echo(f"logged in as {me.name}; groups: {groups}; scopes: {', '.join(me.scopes)}")


def logout(context: typer.Context) -> None:
    """Forget the login at the dispatcher."""
    connection = CliContext.of(context, OutputMode.TABLE).connection
    gone = connection.credentials().forget()
    typer.echo("logged out" if gone else "nobody was logged in")


def whoami(context: typer.Context, output: Printed = OutputMode.TABLE) -> None:
    """Show who one is to the dispatcher, and what one may do."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        me = client.whoami()
    left = "never" if me.expires is None else f"in {duration(me.expires - me.now)}"
    rows = [
        ("name", me.name),
        ("is", "an edge" if me.is_edge else "a user"),
        ("scopes", ", ".join(me.scopes)),
        ("groups", ", ".join(me.groups) or "none"),
        ("sees", "everybody's tasks" if me.sees_all else "own tasks, and those of the groups"),
        ("token ends", left),
    ]
    cli.output.result(me, table=table("field", "value", rows=rows), quiet=[me.name])
