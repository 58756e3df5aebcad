"""The command ``hpcpanda-edge``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from hpcpanda.client.access import Bearer
from hpcpanda.client.async_sdk import AsyncDispatcherClient
from hpcpanda.client.output import OutputMode, printable
from hpcpanda.client.rotation import keeping_token
from hpcpanda.client.site_file import SITE, load_site
from hpcpanda.domain.errors import HpcPandaError, InvalidValue, NotFound, Unavailable
from hpcpanda.domain.site import Site
from hpcpanda_edge.checking import CHECKED, check_site
from hpcpanda_edge.state_folder import StateFolder

if TYPE_CHECKING:
    from hpcpanda_edge.looking import Look

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="The login-node service of hpcpanda: pulls work, runs it in batch allocations, reports it.",
)

SiteOption = Annotated[Path, typer.Option("--site", metavar="FILE", help="Site file (TOML).")]
SpoolOption = Annotated[
    Path | None,
    typer.Option("--spool", metavar="FOLDER", help="Use this spool folder instead of the site file's."),
]

OutputOption = Annotated[OutputMode, typer.Option("--output", "-o", help="What to print.")]


class LogFormat(StrEnum):
    """How log lines are written."""

    CONSOLE = "console"
    JSON = "json"


def dispatcher_folder() -> Path:
    """Where a dispatcher on this machine keeps its state: ``$HPCPANDA_STATE/dispatcher``."""
    state = os.environ.get("HPCPANDA_STATE")
    root = Path(state) if state else Path.home() / ".local" / "state" / "hpcpanda"
    return root / "dispatcher"


@app.command()
def run(
    site: SiteOption,
    dispatcher: Annotated[
        str | None,
        typer.Option(
            envvar="HPCPANDA_DISPATCHER",
            metavar="URL",
            help="URL of the dispatcher; this machine's if not said.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="HPCPANDA_TOKEN_FILE",
            metavar="FILE",
            help="File with the edge's token; this machine's if not said.",
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="HPCPANDA_CA_FILE",
            metavar="FILE",
            help="Certificates (PEM) to believe instead of the system's.",
        ),
    ] = None,
    spool: SpoolOption = None,
    drain: Annotated[  # noqa: FBT002 - an option of the command line
        bool,
        typer.Option("--drain", help="When told to stop, end all allocations first; else they go on."),
    ] = False,
    name_patience: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="Wait so long while another living edge has the name."),
    ] = 150.0,
    log_format: Annotated[LogFormat, typer.Option(help="Form of log lines on stderr.")] = LogFormat.CONSOLE,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every planned action.")] = False,  # noqa: FBT002
) -> None:
    """Run the edge until SIGTERM or Ctrl-C; a second one kills it."""
    _set_up_logs(log_format, verbose=verbose)
    described = load_site(site, spool=spool)
    url = dispatcher or _read("--dispatcher", dispatcher_folder() / "url")
    path = token_file or dispatcher_folder() / "edges" / f"{described.name}.token"
    token = Bearer(_read("--token-file", path))
    serve(
        described,
        url,
        token,
        token_file=path,
        ca_file=ca_file,
        drain_on_stop=drain,
        name_patience_s=name_patience,
    )


@app.command()
def check(
    site: Annotated[Path, typer.Argument(metavar="SITE", help="Site file (TOML).")],
    spool: SpoolOption = None,
    dry_run: Annotated[  # noqa: FBT002 - an option of the command line
        bool,
        typer.Option(
            "--dry-run", help="Show the job script of the largest allocation too; with -o quiet only that."
        ),
    ] = False,
    output: OutputOption = OutputMode.TABLE,
) -> None:
    """Check a site file, what it names on this machine, and what would be submitted."""
    described = load_site(site, spool=spool)
    checked = check_site(described)
    if output is OutputMode.JSON:
        sys.stdout.write(CHECKED.dump_json(checked, indent=2).decode() + "\n")
    elif output is OutputMode.TABLE:
        sys.stdout.write(SITE.dump_json(described, indent=2).decode() + "\n")
        for finding in checked.findings:
            sys.stdout.write(f"{'ok   ' if finding.ok else 'WRONG'} {finding.field}: {finding.text}\n")
    if dry_run and output is not OutputMode.JSON and (would := checked.submission) is not None:
        if output is OutputMode.TABLE:
            sys.stdout.write(f"\nwould be submitted: {' '.join(would.command)}\n\n")
        sys.stdout.write(would.script)
    if wrong := [f for f in checked.findings if not f.ok]:
        raise InvalidValue(str(site), "; ".join(f"{f.field}: {f.text}" for f in wrong))


@app.command()
def status(
    site: SiteOption,
    spool: SpoolOption = None,
    output: OutputOption = OutputMode.TABLE,
) -> None:
    """Show tasks and allocations of the edge, and why each task is where it is."""
    from hpcpanda_edge import output as out

    with _looked_at(site, spool) as seen:
        shown = out.edge_status(seen)
    if output is OutputMode.JSON:
        out.show_json(shown)
    elif output is OutputMode.TABLE:
        out.show_table(shown)


@app.command()
def explain(
    site: SiteOption,
    task: Annotated[int | None, typer.Argument(metavar="[TASK]", help="Only this task.")] = None,
    spool: SpoolOption = None,
    output: OutputOption = OutputMode.TABLE,
) -> None:
    """Say why each task is where it is, why each allocation has its shape, and what its packs do."""
    from hpcpanda_edge import explaining

    with _looked_at(site, spool) as seen:
        told = explaining.explain(seen, task)
    if output is OutputMode.JSON:
        explaining.show_json(told)
    elif output is OutputMode.TABLE:
        explaining.show_text(told)


@app.command()
def drain(
    site: SiteOption,
    spool: SpoolOption = None,
    wait: Annotated[bool, typer.Option(help="Wait until the edge has ended.")] = True,  # noqa: FBT002
) -> None:
    """Let the running edge end all its allocations, report what is done, give back the rest, and end."""
    described = load_site(site, spool=spool)
    folder = StateFolder.of(described.spool)
    if not folder.in_use():
        raise NotFound(
            f"no edge is running over the spool {described.spool}; start it first: its allocations may live"
        )
    folder.drain_request.touch()
    while wait and folder.in_use():
        time.sleep(0.2)


@contextlib.contextmanager
def _looked_at(site: Path, spool: Path | None) -> Iterator[Look]:
    """A look at the edge over the site's spool, whether or not it runs.

    Raises:
        NotFound: no edge has ever run there.
    """
    from hpcpanda_edge.looking import look
    from hpcpanda_edge.store import Store

    described = load_site(site, spool=spool)
    folder = StateFolder.of(described.spool)
    if not folder.database.exists():
        raise NotFound(f"no edge has run over the spool {described.spool} yet")
    store = Store(folder.database, read_only=True)
    try:
        yield look(described, store, running=folder.in_use(), now=time.time())
    finally:
        store.close()


def serve(
    site: Site,
    url: str,
    token: str | Bearer,
    *,
    token_file: Path | None = None,
    ca_file: Path | None = None,
    drain_on_stop: bool = False,
    name_patience_s: float = 150.0,
) -> None:
    """Run the edge of a site until it is told to stop. Call it in the main thread.

    A token that ends is exchanged in time, and the new one written to ``token_file``.

    Raises:
        Unavailable: the spool cannot be used, or another edge uses it.
        InvalidValue: the site names an executor that PSI/J does not have.
        HpcPandaError: the dispatcher refuses this edge.
    """
    from hpcpanda_edge.batch_system.choose import make_scheduler

    folder = StateFolder.of(site.spool)
    folder.create()
    try:
        folder.instance()
    except OSError as problem:
        raise Unavailable(f"the spool folder cannot be used: {folder.path}: {problem.strerror}") from problem
    with folder.only_one():
        scheduler = make_scheduler(site.scheduler, folder.psij, gpus=site.nodes.gpus)

        async def live() -> None:
            from hpcpanda_edge.daemon import Edge, run_until_signalled

            shown = Bearer(token) if isinstance(token, str) else token
            async with (
                AsyncDispatcherClient(url, shown, ca_file=ca_file) as client,
                keeping_token(client, shown, token_file),
            ):
                edge = Edge(
                    site, client, scheduler, drain_on_stop=drain_on_stop, name_patience_s=name_patience_s
                )
                await run_until_signalled(edge)

        asyncio.run(live())


def main() -> None:
    """Entry point: errors as one line on stderr, exit code 1; wrong usage 2."""
    try:
        app()
    except HpcPandaError as problem:
        sys.stderr.write(f"hpcpanda-edge: {printable(str(problem))}\n")
        sys.exit(1)


def _read(option: str, path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError as problem:
        raise Unavailable(
            f"{path}: {problem.strerror}; say {option}, or start a dispatcher on this machine"
        ) from problem


def _set_up_logs(form: LogFormat, *, verbose: bool) -> None:
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form is LogFormat.JSON
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    main()
