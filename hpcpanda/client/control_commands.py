"""``hpcpanda task pause|resume|retry|priority|deadline``"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.output import OutputMode
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.task_views import Task

TaskId = Annotated[int, typer.Argument(help="Number of the task.", min=1)]


def add_to(app: typer.Typer) -> None:
    """Make these commands of an app."""
    for command in (pause, resume, retry, priority, deadline):
        app.command()(command)


def pause(context: typer.Context, task_id: TaskId, output: Printed = OutputMode.TABLE) -> None:
    """Pause a task: nothing more of it is handed out, what runs is finished and counts."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        _show(cli, client.pause(task_id))


def resume(context: typer.Context, task_id: TaskId, output: Printed = OutputMode.TABLE) -> None:
    """Go on with a paused task."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        _show(cli, client.resume(task_id))


def retry(context: typer.Context, task_id: TaskId, output: Printed = OutputMode.TABLE) -> None:
    """Try a task that has ended again: all that is in no output of it yet, with what came to its dataset since."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        _show(cli, client.retry(task_id))


def priority(
    context: typer.Context,
    task_id: TaskId,
    value: Annotated[int, typer.Argument(help="Higher is served first.", min=-1000, max=1000)],
    output: Printed = OutputMode.TABLE,
) -> None:
    """Give a task another priority."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        task = client.set_priority(task_id, value)
    cli.output.result(task, table=f"task {task_id} has priority {value}", quiet=[value])


def deadline(
    context: typer.Context,
    task_id: TaskId,
    when: Annotated[str, typer.Argument(help="With a time zone, as 2026-12-24T18:00:00Z; 'none' for none.")],
    output: Printed = OutputMode.TABLE,
) -> None:
    """Give a task another deadline, or none."""
    cli = CliContext.of(context, output)
    chosen = None if when == "none" else _time(when)
    with cli.connection.open() as client:
        task = client.set_deadline(task_id, chosen)
    said = chosen.isoformat() if chosen is not None else "none"
    cli.output.result(task, table=f"task {task_id} has deadline {said}", quiet=[said])


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as problem:
        raise InvalidValue("deadline", f"{text!r} is no time such as 2026-12-24T18:00:00Z") from problem


def _show(cli: CliContext, task: Task) -> None:
    cli.output.result(task, table=f"task {task.task_id} is {task.state}", quiet=[task.state])
