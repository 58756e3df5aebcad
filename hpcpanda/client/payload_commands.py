"""``hpcpanda payload ...``: try a payload before it is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.output import OutputMode, table
from hpcpanda.client.task_file import load_task

app = typer.Typer(no_args_is_help=True, help="Try payloads.")

EXIT_NOT_SOUND = 3
"""Exit status of ``check`` when the payload is not fit for submission."""


@app.command()
def check(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Task file (TOML).", exists=True, dir_okay=False)],
    events: Annotated[int, typer.Option(help="Events to try, from the first.", min=1, max=100_000)] = 50,
    workers: Annotated[int, typer.Option(help="Processes at a time.", min=1, max=256)] = 2,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Run the first events in ranges cut differently: is the output the same, what does an event cost?

    Exit status 3 when the output depends on the cut or a range fails.
    """
    from hpcpanda.payload.check import check_payload

    cli = CliContext.of(context, output)
    report = check_payload(load_task(file), events=events, workers=workers)
    rows = [("events tried", f"{report.events:,}"), ("set-up", f"{report.setup_s:.2f} s")]
    rows += [
        (f"cost, {c.name}", f"{c.event_seconds * 1000:.3g} ms an event in {c.ranges} ranges")
        for c in report.cuts
    ]
    shared = "unknown" if report.shared_mb is None else f"{report.shared_mb:.0f} MiB of them shared"
    rows += [
        ("output", f"{report.bytes_per_event:,.0f} bytes an event"),
        ("memory of a worker", f"{report.worker_rss_mb:.0f} MiB, {shared}"),
    ]
    rows += [("warning", w) for w in report.warnings]
    rows += [("failed", f"events [{f.first}, {f.last}) in {f.cut}: {f.error}") for f in report.failures]
    if report.difference:
        d = report.difference
        rows.append(
            (
                "DEPENDS ON THE CUT",
                f"event {d.event}, {d.column or 'bytes'}, {' / '.join(d.cuts)}: {d.detail}",
            )
        )
    rows.append(("verdict", "independent of the cut" if report.ok else "not fit for submission"))
    cli.output.result(
        report, table=table("what", "found", rows=rows), quiet=["sound" if report.ok else "not sound"]
    )
    if not report.ok:
        raise typer.Exit(EXIT_NOT_SOUND)
