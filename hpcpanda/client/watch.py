"""Follow a task until it ends: events done, rate, busy cores, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from hpcpanda.client.output import duration, plain_console, rate
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.errors import NotFound, Unavailable
from hpcpanda.domain.task_views import Task

_POLL_S = 0.5
_PATIENCE_S = 300.0


def follow(client: DispatcherClient, task_id: int) -> Iterator[Task]:
    """The task whenever it has changed, and now and then, until it is final; a dispatcher that is away for minutes is
    waited for. Where it has no change stream, or no room for one more, it is asked again and again.

    Raises:
        Unavailable: it was away for longer than five minutes.
        NotFound: there is no such task.
    """
    signals = client.changes(task_id)
    try:
        task = client.task(task_id)
        yield task
        while not task.state.final:
            next(signals)
            task = client.task(task_id)
            yield task
    except (NotFound, Unavailable):
        yield from poll(client, task_id)
    finally:
        signals.close()


def poll(client: DispatcherClient, task_id: int, *, poll_s: float = _POLL_S) -> Iterator[Task]:
    """The task again and again, until it is final; a dispatcher that is away for minutes is waited for.

    Raises:
        Unavailable: it was away for longer than five minutes.
        NotFound: there is no such task.
    """
    heard = time.monotonic()
    while True:
        try:
            task = client.task(task_id)
        except Unavailable:
            if time.monotonic() - heard > _PATIENCE_S:
                raise
        else:
            heard = time.monotonic()
            yield task
            if task.state.final:
                return
        time.sleep(poll_s)


def describe(task: Task) -> str:
    """One line: rate, busy cores, time left."""
    p = task.progress
    words = [rate(p.events_per_second, task.spec.unit)]
    if p.cores:
        words.append(f"cores {p.cores_busy:.1f} of {p.cores} busy")
    left = p.total - p.done - p.failed
    if left and p.events_per_second > 0:
        words.append(f"{duration(left / p.events_per_second)} left")
    if p.failed:
        words.append(f"{p.failed:,} failed")
    return ", ".join(words)


def watch(client: DispatcherClient, task_id: int) -> Task:
    """Show a bar on a terminal, a line now and then elsewhere; gives the task at its end."""
    console = plain_console(stderr=True)
    last: Task | None = None
    if not sys.stderr.isatty():
        said = 0.0
        for last in follow(client, task_id):
            if time.monotonic() - said >= 5.0 or last.state.final:
                said = time.monotonic()
                progress = f"{last.progress.done:,} of {last.progress.total:,} {last.spec.unit}s"
                console.print(f"task {task_id} {last.state}: {progress}, {describe(last)}", soft_wrap=True)
    else:
        columns = (
            TextColumn("{task.fields[state]}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=console) as bar:
            shown = bar.add_task("", total=None, state="")
            for last in follow(client, task_id):
                p = last.progress
                bar.update(
                    shown,
                    total=p.total,
                    completed=p.done + p.failed,
                    description=describe(last),
                    state=str(last.state),
                )
    assert last is not None
    return last
