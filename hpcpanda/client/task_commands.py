"""``hpcpanda task ...``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpcpanda.client import control_commands
from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.output import OutputMode, duration, rate, table, when
from hpcpanda.client.task_file import load_task
from hpcpanda.client.watch import describe
from hpcpanda.client.watch import watch as watch_task
from hpcpanda.dispatcher.wording import counted
from hpcpanda.domain.jobs import JobRequest
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task_views import Task

app = typer.Typer(no_args_is_help=True, help="Submit tasks, see where they are, get their outputs.")
control_commands.add_to(app)

TaskId = Annotated[int, typer.Argument(help="Number of the task.", min=1)]

EXIT_TASK_FAILED = 3
"""Exit status of ``watch`` when the task did not end well."""


@app.command()
def submit(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Task file (TOML).", exists=True, dir_okay=False)],
    watch: Annotated[bool, typer.Option("--watch", help="Follow the task until it ends.")] = False,  # noqa: FBT002
    output: Printed = OutputMode.TABLE,
) -> None:
    """Submit a task and print its number."""
    cli = CliContext.of(context, output)
    spec = load_task(file)
    with cli.connection.open() as client:
        task = client.submit(spec)
        cli.output.result(
            task,
            table=f"task {task.task_id} accepted: {task.progress.total:,} {spec.unit}s",
            quiet=[task.task_id],
        )
        if watch:
            _leave(watch_task(client, task.task_id), cli)


@app.command(name="list")
def list_tasks(
    context: typer.Context,
    state: Annotated[TaskState | None, typer.Option(help="Only tasks in this state.")] = None,
    name: Annotated[str | None, typer.Option(help="Only tasks of this name.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only tasks of this user.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    after: Annotated[int | None, typer.Option(help="Next page: tasks below this number.")] = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """List tasks, newest first."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        page = client.tasks(state=state, name=name, owner=owner, limit=limit, after=after)
    rows = [
        (
            t.task_id,
            t.spec.name,
            t.state,
            t.owner,
            f"{t.progress.done:,}",
            f"{t.progress.total:,} {t.spec.unit}s",
            t.progress.failed,
            rate(t.progress.events_per_second, t.spec.unit),
        )
        for t in page.tasks
    ]
    shown = table("task", "name", "state", "owner", "done", "of", "failed", "rate", rows=rows)
    cli.output.result(page, table=shown, quiet=[t.task_id for t in page.tasks])
    if page.next_after is not None:
        cli.output.say(f"more: --after {page.next_after}")


@app.command()
def show(context: typer.Context, task_id: TaskId, output: Printed = OutputMode.TABLE) -> None:
    """Show one task."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        task = client.task(task_id)
    cli.output.result(task, table=table("field", "value", rows=_fields(task)), quiet=[task.state])


@app.command()
def watch(context: typer.Context, task_id: TaskId, output: Printed = OutputMode.TABLE) -> None:
    """Follow a task until it ends; exit status 3 when it failed or was cancelled."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        _leave(watch_task(client, task_id), cli)


@app.command()
def cancel(context: typer.Context, task_id: TaskId, output: Printed = OutputMode.TABLE) -> None:
    """Cancel a task: nothing more of it is run, what was done is not merged."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        task = client.cancel(task_id)
    cli.output.result(task, table=f"task {task_id} is {task.state}", quiet=[task.state])


@app.command()
def explain(context: typer.Context, task_id: TaskId, output: Printed = OutputMode.TABLE) -> None:
    """Say why a task is where it is."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        told = client.explain(task_id)
    edges = [f"edge {said.edge} ({said.why.code}): {said.why.sentence}" for said in told.edges]
    edges += [f"brokerage, {said.edge} ({said.why.code}): {said.why.sentence}" for said in told.brokerage]
    edges += [told.order.sentence] if told.order is not None else []
    lines = [f"task {task_id} is {told.state}", *(f"- {reason}" for reason in (*told.reasons, *edges))]
    cli.output.result(told, table="\n".join(lines), quiet=(*told.reasons, *edges))


@app.command()
def outputs(context: typer.Context, task_id: TaskId, output: Printed = OutputMode.TABLE) -> None:
    """List a task's merged files."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        found = client.outputs(task_id)
        unit = client.task(task_id).spec.unit
    rows = [(f.path, str(f.events), f.size, f.digest) for f in found.files]
    cli.output.result(
        found,
        table=table("file", f"{unit}s", "bytes", "digest", rows=rows),
        quiet=[f.path for f in found.files],
    )


@app.command()
def failures(
    context: typer.Context,
    task_id: TaskId,
    after: Annotated[int | None, typer.Option(help="Next page: events or jobs above this number.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100,
    output: Printed = OutputMode.TABLE,
) -> None:
    """List the events or jobs that were set aside, each with its error."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        page = client.failures(task_id, after=after, limit=limit)
        unit = client.task(task_id).spec.unit
    rows = [(f.event, f.attempts, f.kind or "", f.error) for f in page.events]
    cli.output.result(
        page, table=table(unit, "attempts", "kind", "error", rows=rows), quiet=[f.event for f in page.events]
    )
    if page.next_after is not None:
        cli.output.say(f"more: --after {page.next_after}")


def _fields(task: Task) -> list[tuple[str, str]]:
    p = task.progress
    unit = task.spec.unit
    job = task.spec.job_request
    counts = f"{p.done:,} done, {p.leased:,} leased, {p.ready:,} ready, {p.failed:,} failed of {p.total:,}"
    rows = [
        ("task", str(task.task_id)),
        ("name", task.spec.name),
        ("owner", task.owner),
        ("state", str(task.state)),
        (f"{unit}s", counts),
        *([] if job is None else [("a job asks for", _request(job))]),
        (f"cost of {'an event' if job is None else 'a job'}", _cost(p.event_seconds, job)),
        *([] if task.state.final else [("now", describe(task))]),
        ("created", when(task.created)),
        ("changed", f"{when(task.updated)} ({duration(task.updated - task.created)} later)"),
    ]
    return [*rows, ("message", task.message)] if task.message else rows


def _cost(core_seconds: float | None, job: JobRequest | None) -> str:
    if not core_seconds:
        return "not measured yet"
    return f"{core_seconds * 1000:.3g} ms of a core" if job is None else f"{core_seconds:,.1f} core-seconds"


def _request(job: JobRequest) -> str:
    """What a job asks for, in words."""
    place = counted(job.cores, "core")
    if job.nodes > 1:
        place = f"{job.nodes} nodes, {counted(job.ranks_per_node, 'rank')} on each"
    words = [place, f"{job.memory_mb:,} MiB", f"{duration(job.walltime_s)} at most"]
    if job.gpus:
        words.append(counted(job.gpus, "GPU") + (" a node" if job.nodes > 1 else ""))
    if job.clones > 1:
        words.append(f"{job.clones} clones")
    return ", ".join(words)


def _leave(task: Task, cli: CliContext) -> None:
    """End with the exit status that tells how the task ended."""
    message = f": {task.message}" if task.message else ""
    cli.output.say(f"task {task.task_id} is {task.state}{message}")
    if task.state not in (TaskState.DONE, TaskState.FINISHED):
        raise typer.Exit(EXIT_TASK_FAILED)
