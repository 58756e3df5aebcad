"""What the commands of the command line share: the connection and the output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from hpcpanda.client.connection import Connection
from hpcpanda.client.output import Output, OutputMode

Printed = Annotated[OutputMode, typer.Option("--output", "-o", help="What to print.")]
"""The ``--output`` option of a command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CliContext:
    """How one command reaches the dispatcher and prints."""

    connection: Connection
    output: Output

    @staticmethod
    def of(context: typer.Context, output: OutputMode) -> CliContext:
        """With the connection that the root command made."""
        connection = context.find_object(Connection)
        assert connection is not None
        return CliContext(connection=connection, output=Output(output))
