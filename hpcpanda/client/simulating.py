"""What ``hpcpanda simulate`` does: read, simulate, print, draw. Imported late, for the sake of the other commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hpcpanda.client.output import Output, OutputMode, table
from hpcpanda.client.site_file import load_site
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import Site
from hpcpanda.simulate.harvest import ALL_POLICIES, PolicyName, SimulationOptions, simulate
from hpcpanda.simulate.perlmutter.report import CHECK_COLUMNS, COLUMNS, check_rows, draw_perlmutter, rows
from hpcpanda.simulate.perlmutter.run import run_perlmutter
from hpcpanda.simulate.pictures.draw import draw_pictures, require_matplotlib
from hpcpanda.simulate.reading.choose import read_trace
from hpcpanda.simulate.reading.formats import TraceFormat
from hpcpanda.simulate.report import document, figures_of, headline
from hpcpanda.simulate.trace import HostTrace
from hpcpanda.simulate.work.workload import JobWork, Workload

__all__ = ["SimulationOptions", "fit_site", "harvest", "load_host", "perlmutter"]

_DAY = 86_400.0


def load_host(
    output: Output,
    path: Path,
    *,
    nodes: int | None,
    cores_per_node: int | None,
    trace_format: TraceFormat | None,
    days: float | None,
    year: int | None,
) -> HostTrace:
    """The part of a trace that is to be replayed; its flaws are told.

    Raises:
        InvalidValue: the file cannot be used, or has no such part.
        TooLarge: it is larger than can be read.
    """
    trace = read_trace(path, nodes=nodes, cores_per_node=cores_per_node, format=trace_format)
    for flaw in trace.flaws:
        output.say(f"{flaw.count:,} {flaw.kind}, first in line {flaw.first_line:,}: {flaw.remedy}")
    if year is not None:
        return trace.year(year)
    return trace if days is None else trace.period(0.0, days * _DAY)


def fit_site(output: Output, path: Path, machine_nodes: int) -> Site:
    """The site of a file with as many nodes as the trace's machine has; its limits count where they are less.

    Raises:
        InvalidValue: the file is wrong, or its limits do not suit the machine.
    """
    site = load_site(path, elsewhere=True)
    held = min(machine_nodes, site.limits.nodes or machine_nodes)
    site = replace(
        site, nodes=replace(site.nodes, count=machine_nodes), limits=replace(site.limits, nodes=held)
    )
    output.say(
        f"site {site.name}: {machine_nodes:,} nodes of {site.nodes.cores} cores; at most {site.limits.allocations:,}"
        f" allocations and {held:,} nodes of ours"
    )
    return site


def harvest(
    output: Output,
    trace: HostTrace,
    site: Site,
    *,
    policies: Sequence[str],
    options: SimulationOptions,
    pictures: Path | None,
) -> None:
    """Simulate, and tell what was found.

    Raises:
        InvalidValue: a policy is not known, or the simulation cannot be.
    """
    chosen = tuple(dict.fromkeys(map(_policy, policies))) or ALL_POLICIES
    if pictures is not None:
        require_matplotlib()
    with _progress(output) as tell:
        options = replace(options, series=pictures is not None, workload=_workload(site))
        result = simulate(trace, site, policies=chosen, options=options, progress=tell)
    told = [figures_of(p) for p in result.policies]
    shown = table(
        "",
        *(p.policy for p in result.policies),
        rows=[(name, *(figures[name] for figures in told)) for name in told[0]],
        title=headline(result),
    )
    for column in shown.columns[1:]:
        column.justify = "right"
    output.result(
        document(result), table=shown, quiet=[f"{p.policy}\t{p.useful_share:.4f}" for p in result.policies]
    )
    if pictures is not None:
        _name(output, draw_pictures(result, pictures))


def _workload(site: Site) -> Workload:
    """The usual work, with jobs that fit the site's nodes."""
    jobs = JobWork()
    cores, memory_mb = min(jobs.cores, site.nodes.cores), min(jobs.memory_mb, site.nodes.memory_mb)
    return Workload(jobs=replace(jobs, cores=cores, memory_mb=memory_mb))


def _policy(name: str) -> PolicyName:
    try:
        return PolicyName(name)
    except ValueError:
        raise InvalidValue("policy", f"{name!r} is none of {', '.join(PolicyName)}") from None


def perlmutter(output: Output, *, seed: int, pictures: Path | None) -> None:
    """Simulate the preset, and tell what was found.

    Raises:
        InvalidValue: pictures cannot be drawn.
    """
    if pictures is not None:
        require_matplotlib()
    with _progress(output) as tell:
        result = run_perlmutter(seed=seed, progress=lambda share: tell("perlmutter", share))
    found = rows(result)
    output.result(result, table=table(*COLUMNS, rows=found), quiet=[f"{row[0]}\t{row[1]}" for row in found])
    if output.mode is OutputMode.TABLE:
        output.console.print()
        output.console.print(table(*CHECK_COLUMNS, rows=check_rows(result)))
        output.console.print()
        for sentence in result.assumptions:
            output.console.print(sentence, soft_wrap=True)
    if pictures is not None:
        _name(output, draw_perlmutter(result, pictures))


def _name(output: Output, drawn: Sequence[Path]) -> None:
    for path in drawn:
        output.say(f"drew {path}")


@contextmanager
def _progress(output: Output) -> Iterator[Callable[[str, float], None]]:
    """A bar for each thing that tells its share done; only where stderr is a terminal."""
    bars: dict[str, TaskID] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=output.errors,
        transient=True,
        disable=not output.errors.is_terminal,
    ) as shown:

        def tell(name: str, share: float) -> None:
            if name not in bars:
                bars[name] = shown.add_task(name, total=1.0)
            shown.update(bars[name], completed=share)

        yield tell
