"""``hpcpanda report ...``"""

from __future__ import annotations

import csv
import sys
from datetime import date, datetime
from typing import Annotated

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.output import OutputMode, duration, table
from hpcpanda.domain.usage import AMOUNTS, Amounts, UsageBy, UsageTable

app = typer.Typer(no_args_is_help=True, help="See what was used.")

_HOUR = 3600.0
_HEAD = ("used", "useful", "preempted", "lost", "idle", "node-hours", "waiting", "done", "failed")

_DAYS = ["%Y-%m-%d"]


@app.callback()
def report() -> None:
    """See what was used."""


@app.command()
def usage(
    context: typer.Context,
    by: Annotated[UsageBy, typer.Option(help="How the sum is divided.")] = UsageBy.TASK,
    first: Annotated[
        datetime | None,
        typer.Option("--from", formats=_DAYS, help="First day, of UTC; 30 days in all if none."),
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=_DAYS, help="Last day, counted too; today if none.")
    ] = None,
    limit: Annotated[int, typer.Option(help="At most so many lines.", min=1, max=10_000)] = 1000,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, in seconds.")] = False,  # noqa: FBT002
    output: Printed = OutputMode.TABLE,
) -> None:
    """Show core-hours used, useful, lost and idle, node-hours charged, and time waited."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        told = client.usage(by, first=_day(first), last=_day(last), limit=limit)
    if as_csv:
        _write_csv(told)
        return
    named = by is UsageBy.TASK
    rows = [(row.key or "(none)", *((row.name,) if named else ()), *_shown(row.amounts)) for row in told.rows]
    rows.append(("total", *(("",) if named else ()), *_shown(told.total)))
    columns = (by, *(("name",) if named else ()), *_HEAD)
    title = f"core-hours from {told.first} to {told.last}"
    cli.output.result(
        told, table=table(*columns, rows=rows, title=title), quiet=[row.key for row in told.rows]
    )
    if told.left_out:
        cli.output.say(f"{told.left_out} lines more, with less: --limit {limit + told.left_out}")


def _write_csv(told: UsageTable) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((told.by, "name", *AMOUNTS))
    for row in told.rows:
        writer.writerow((row.key, row.name, *(getattr(row.amounts, name) for name in AMOUNTS)))


def _shown(a: Amounts) -> tuple[str | int, ...]:
    core_s = (a.used_s, a.useful_s, a.preempted_s, a.lost_s, max(0.0, a.held_s - a.used_s), a.node_s)
    hours = (f"{seconds / _HOUR:,.3f}" for seconds in core_s)
    return (*hours, duration(a.waiting_s), a.done, a.failed)


def _day(when: datetime | None) -> date | None:
    return None if when is None else when.date()
