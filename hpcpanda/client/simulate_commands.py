"""``hpcpanda simulate``"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpcpanda.client.cli_context import Printed
from hpcpanda.client.output import Output, OutputMode
from hpcpanda.simulate.reading.formats import TraceFormat


class Windows(StrEnum):
    """What backfill windows are worth."""

    TRUTHFUL = "truthful"
    ESTIMATED = "estimated"


class Preset(StrEnum):
    """Ready simulations."""

    PERLMUTTER = "perlmutter"


TraceFile = Annotated[
    Path | None,
    typer.Argument(
        help="Job trace of the host: Standard Workload Format, sacct, PBS or ALCF.", metavar="TRACE"
    ),
]
SiteFile = Annotated[
    Path | None, typer.Option("--site", help="Site file (TOML): size of a node, limits, margins.")
]
Nodes = Annotated[
    int | None, typer.Option(help="Nodes of the machine; as the trace tells if not said.", min=1)
]
Cores = Annotated[
    int | None,
    typer.Option("--cores-per-node", help="For traces that count processors: so many make a node.", min=1),
]
Format = Annotated[
    TraceFormat | None, typer.Option("--format", help="Format of the trace; guessed if not said.")
]
Policies = Annotated[
    list[str] | None, typer.Option("--policy", help="Simulate this policy; may be repeated. All if not said.")
]
WindowsKnown = Annotated[
    Windows, typer.Option(help="Windows tell what will be idle, or what requested walltimes let expect.")
]
Preemptible = Annotated[bool, typer.Option("--preemptible", help="The host takes its nodes back from us.")]
Days = Annotated[float | None, typer.Option(help="Only the first days of the trace.", min=0.01)]
Year = Annotated[int | None, typer.Option(help="Only this calendar year (UTC).", min=1970, max=9998)]
Seed = Annotated[int, typer.Option(help="Of all randomness.", min=0)]
Pictures = Annotated[Path | None, typer.Option(help="Draw pictures into this folder.", file_okay=False)]
ReadyMade = Annotated[
    Preset | None, typer.Option(help="A ready simulation, in the place of TRACE and --site.")
]


def simulate(
    trace: TraceFile = None,
    site: SiteFile = None,
    preset: ReadyMade = None,
    nodes: Nodes = None,
    cores_per_node: Cores = None,
    trace_format: Format = None,
    policy: Policies = None,
    windows: WindowsKnown = Windows.TRUTHFUL,
    preemptible: Preemptible = False,  # noqa: FBT002
    days: Days = None,
    year: Year = None,
    seed: Seed = 0,
    pictures: Pictures = None,
    output: Printed = OutputMode.TABLE,
) -> None:
    """Let policies harvest what the jobs of a trace leave idle on a machine, and compare them."""
    from hpcpanda.client import simulating

    out = Output(output)
    if preset is Preset.PERLMUTTER:
        if trace is not None or site is not None:
            raise typer.BadParameter(
                "has a machine of its own: leave TRACE and --site out", param_hint="--preset"
            )
        simulating.perlmutter(out, seed=seed, pictures=pictures)
        return
    if trace is None or site is None:
        raise typer.BadParameter("needed, unless there is a --preset", param_hint="TRACE and --site")
    if days is not None and year is not None:
        raise typer.BadParameter("choose one of them", param_hint="--days and --year")
    host = simulating.load_host(
        out,
        trace,
        nodes=nodes,
        cores_per_node=cores_per_node,
        trace_format=trace_format,
        days=days,
        year=year,
    )
    simulating.harvest(
        out,
        host,
        simulating.fit_site(out, site, host.machine_nodes),
        policies=policy or (),
        options=simulating.SimulationOptions(windows=windows.value, preemptible=preemptible, seed=seed),
        pictures=pictures,
    )
