"""``hpcpanda payload ...``: try a payload before it is submitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.output import OutputMode, table
from hpcpanda.client.task_file import load_task
from hpcpanda.domain.jobs import JobRequest

if TYPE_CHECKING:
    from hpcpanda.client.job_check import JobsReport
    from hpcpanda.payload.check import CheckReport

app = typer.Typer(no_args_is_help=True, help="Try payloads.")

EXIT_NOT_SOUND = 3
"""Exit status of ``check`` when the payload is not fit for submission."""

Row = tuple[str, str]


@app.command()
def check(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Task file (TOML).", exists=True, dir_okay=False)],
    events: Annotated[int, typer.Option(help="Events to try, from the first.", min=1, max=100_000)] = 50,
    jobs: Annotated[int, typer.Option(help="Jobs to try, spread over all.", min=1, max=10_000)] = 3,
    workers: Annotated[int, typer.Option(help="Processes, or jobs, at a time.", min=1, max=256)] = 2,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Run the first events in ranges cut differently, or some jobs twice: is the output the same, what does it cost?

    Exit status 3 when the output depends on the cut, or differs between runs, or something fails.
    """
    cli = CliContext.of(context, output)
    spec = load_task(file)
    report: CheckReport | JobsReport
    if spec.job_request is not None:
        from hpcpanda.client.job_check import check_jobs

        report = check_jobs(spec, jobs=jobs, workers=workers)
        rows = list(_of_jobs(report, spec.job_request))
    else:
        from hpcpanda.payload.check import check_payload

        report = check_payload(spec, events=events, workers=workers)
        rows = list(_of_events(report))
    cli.output.result(
        report, table=table("what", "found", rows=rows), quiet=["sound" if report.ok else "not sound"]
    )
    if not report.ok:
        raise typer.Exit(EXIT_NOT_SOUND)


def _of_events(report: CheckReport) -> Iterator[Row]:
    yield "events tried", f"{report.events:,}"
    yield "set-up", f"{report.setup_s:.2f} s"
    for c in report.cuts:
        yield f"cost, {c.name}", f"{c.event_seconds * 1000:.3g} ms an event in {c.ranges} ranges"
    shared = "unknown" if report.shared_mb is None else f"{report.shared_mb:.0f} MiB of them shared"
    yield "output", f"{report.bytes_per_event:,.0f} bytes an event"
    yield "memory of a worker", f"{report.worker_rss_mb:.0f} MiB, {shared}"
    for w in report.warnings:
        yield "warning", w
    for f in report.failures:
        yield "failed", f"events [{f.first}, {f.last}) in {f.cut}: {f.error}"
    if report.difference:
        d = report.difference
        where = f"event {d.event}, {d.column or 'bytes'}, {' / '.join(d.cuts)}"
        yield "DEPENDS ON THE CUT", f"{where}: {d.detail}"
    yield "verdict", "independent of the cut" if report.ok else "not fit for submission"


def _of_jobs(report: JobsReport, request: JobRequest) -> Iterator[Row]:
    yield "jobs tried", f"{', '.join(map(str, report.jobs))}; each twice"
    if report.costs:
        wall = [c.wall_s for c in report.costs]
        least, most = min(wall) * request.cores, max(wall) * request.cores
        yield "cost of a job", f"{least:.3g} to {most:.3g} core-seconds"
        yield "wall time", f"at most {max(wall):.3g} s of {request.walltime_s:g} s asked for"
        memory = max(c.max_rss_mb for c in report.costs)
        yield "memory", f"at most {memory:.0f} MiB of {request.memory_mb} MiB asked for"
        yield "output", f"at most {max(c.output_bytes for c in report.costs):,} bytes a job"
    for w in report.warnings:
        yield "warning", w
    for f in report.failures:
        printed = f.printed.strip().splitlines()
        said = f"; it said: {printed[-1]}" if printed else ""
        yield "failed", f"job {f.job}: {f.error}{said}"
    for d in report.differences:
        yield "DIFFERS", f"job {d.job}, {d.file}: {d.detail}"
    yield "verdict", "the same files in both runs" if report.ok else "not fit for submission"
