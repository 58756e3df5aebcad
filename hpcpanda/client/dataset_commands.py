"""``hpcpanda dataset ...``"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from hpcpanda.client.cli_context import CliContext, Printed
from hpcpanda.client.local_files import Checksum, describe_file, listed_files, portions, require_names
from hpcpanda.client.output import OutputMode, table, when
from hpcpanda.dispatcher.wording import counted
from hpcpanda.domain.dataset import Added, Dataset, DatasetFile, Fact
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import InputFormat

app = typer.Typer(no_args_is_help=True, help="Named lists of files that tasks read and write.")

DidArgument = Annotated[
    str, typer.Argument(help="The dataset, as scope:name.", metavar="SCOPE:NAME", show_default=False)
]


@app.command()
def create(
    context: typer.Context,
    dataset: DidArgument,
    meta: Annotated[list[str] | None, typer.Option(help="A free fact, as key=value.")] = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Make a dataset, open and empty."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        made = client.create_dataset(dataset, dict(_fact(text) for text in meta or ()))
    cli.output.result(made, table=f"dataset {made.did} has {counted(made.files, 'file')}", quiet=[made.did])


@app.command()
def add(
    context: typer.Context,
    dataset: DidArgument,
    files: Annotated[
        list[Path] | None, typer.Argument(help="Files on this machine.", exists=True, dir_okay=False)
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Site whose file system the files are on, as its edge is called.")
    ] = None,
    kind: Annotated[
        InputFormat, typer.Option("--format", help="What kind of files they are.")
    ] = InputFormat.ROOT,
    container: Annotated[
        str | None, typer.Option(help="Name of the tree (ROOT) or dataset (HDF5) whose entries are counted.")
    ] = None,
    checksum: Annotated[
        Checksum, typer.Option(help="Checksum to make; reads all of each file.")
    ] = Checksum.NONE,
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list", help="A list of files, one JSON document a line.", exists=True, dir_okay=False
        ),
    ] = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Add files; those that are there stay, and where copies of them are is noted."""
    cli = CliContext.of(context, output)
    calls: Iterable[list[DatasetFile]]
    if listed is not None and not files:
        calls = listed_files(listed)
    elif files and listed is None and site is not None:
        require_names(files)
        calls = portions(
            describe_file(path, site=site, kind=kind, container=container, checksum=checksum)
            for path in files
        )
    else:
        raise InvalidValue("FILES", "give files with --site, or --list alone")
    told: Added | None = None
    added = known = 0
    with cli.connection.open() as client:
        for portion in calls:
            told = client.add_files(dataset, portion)
            added, known = added + told.added, known + told.known
        if told is None:
            raise InvalidValue(str(listed), "lists no file")
    told = Added(added=added, known=known, dataset=told.dataset)
    has = f"{counted(told.dataset.files, 'file')} with {counted(told.dataset.events, 'event')}"
    cli.output.result(
        told, table=f"{counted(added, 'file')} added, {known} known; {dataset} has {has}", quiet=[added]
    )


@app.command()
def close(context: typer.Context, dataset: DidArgument, output: Printed = OutputMode.TABLE) -> None:
    """Let no more files come, so that tasks can read the dataset."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        closed = client.close_dataset(dataset)
    cli.output.result(closed, table=f"dataset {closed.did} is closed", quiet=[closed.did])


@app.command()
def show(context: typer.Context, dataset: DidArgument, output: Printed = OutputMode.TABLE) -> None:
    """Show a dataset: where its files are, and which tasks write it."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        found = client.dataset(dataset)
    cli.output.result(found, table=table("field", "value", rows=_fields(found)), quiet=[_state(found)])


@app.command(name="list")
def list_datasets(
    context: typer.Context,
    scope: Annotated[str | None, typer.Option(help="Only of this scope.")] = None,
    name: Annotated[str | None, typer.Option(help="Only of this name.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only of this owner.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 50,
    after: Annotated[int | None, typer.Option(help="Next page, as the page before says.")] = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """List datasets, newest first."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        page = client.datasets(scope=scope, name=name, owner=owner, limit=limit, after=after)
    rows = [(d.did, _state(d), d.owner, d.files, d.events, d.size) for d in page.datasets]
    shown = table("dataset", "state", "owner", "files", "events", "bytes", rows=rows)
    cli.output.result(page, table=shown, quiet=[d.did for d in page.datasets])
    if page.next_after is not None:
        cli.output.say(f"more: --after {page.next_after}")


@app.command(name="files")
def list_files(
    context: typer.Context,
    dataset: DidArgument,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100,
    after: Annotated[int | None, typer.Option(help="Next page: files behind this place.")] = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """List the files of a dataset, in order."""
    cli = CliContext.of(context, output)
    with cli.connection.open() as client:
        page = client.dataset_files(dataset, after=after, limit=limit)
    rows = [
        (
            f.ordinal,
            f.file.name,
            f"[{f.first}, {f.last})",
            f.file.size,
            f.file.checksum or f.file.digest or "",
            "" if f.task_id is None else str(f.task_id),
            " ".join(f"{r.site}:{r.path}" for r in f.file.replicas),
        )
        for f in page.files
    ]
    shown = table("place", "file", "events", "bytes", "checksum or digest", "task", "copies", rows=rows)
    cli.output.result(page, table=shown, quiet=[f.file.name for f in page.files])
    if page.next_after is not None:
        cli.output.say(f"more: --after {page.next_after}")


def _fact(text: str) -> tuple[str, Fact]:
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidValue("--meta", f"{text!r} is not of the form key=value")
    return key, value


def _state(dataset: Dataset) -> str:
    return "open" if dataset.open else "closed"


def _fields(dataset: Dataset) -> list[tuple[str, str]]:
    rows = [
        ("dataset", dataset.did),
        ("owner", dataset.owner),
        ("state", _state(dataset)),
        ("files", f"{dataset.files:,}"),
        ("events", f"{dataset.events:,}"),
        ("bytes", f"{dataset.size:,}"),
        ("created", when(dataset.created)),
        ("changed", when(dataset.updated)),
    ]
    rows += [(f"fact {key}", str(value)) for key, value in dataset.meta.items()]
    rows += [(f"at {s.site}", f"{counted(s.files, 'file')}, {s.size:,} bytes") for s in dataset.sites]
    for writer in dataset.provenance:
        source = f" from {writer.source}" if writer.source else ""
        rows.append(("written by", f"task {writer.task_id}{source} ({writer.spec_digest})"))
    return rows
