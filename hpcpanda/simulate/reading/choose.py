"""Read a trace of whatever format it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_between
from hpcpanda.simulate.reading.alcf import is_alcf, read_alcf
from hpcpanda.simulate.reading.formats import TraceFormat
from hpcpanda.simulate.reading.lines import read_lines
from hpcpanda.simulate.reading.mending import Facts, mend
from hpcpanda.simulate.reading.pbs import is_pbs, read_pbs
from hpcpanda.simulate.reading.rows import Rows
from hpcpanda.simulate.reading.slurm import is_slurm, read_slurm
from hpcpanda.simulate.reading.swf import is_swf, read_swf
from hpcpanda.simulate.trace import HostTrace

_LOOKS_LIKE: Final[dict[TraceFormat, Callable[[Sequence[str]], bool]]] = {
    TraceFormat.SLURM: is_slurm,
    TraceFormat.ALCF: is_alcf,
    TraceFormat.PBS: is_pbs,
    TraceFormat.SWF: is_swf,
}
_HEAD: Final = 300
"""Lines that the format is guessed from: headers of the Standard Workload Format are long."""


def read_trace(
    path: Path,
    *,
    nodes: int | None = None,
    cores_per_node: int | None = None,
    format: TraceFormat | None = None,  # noqa: A002
) -> HostTrace:
    """The host's jobs of a trace, mended where that is honest; every flaw is in ``flaws``.

    Args:
        path: plain or packed with gzip, bzip2 or xz.
        nodes: nodes of the machine; None takes what the trace tells, else the most that ran at once.
        cores_per_node: only for the Standard Workload Format, which counts processors.
        format: None guesses it from the first lines.

    Raises:
        InvalidValue: the file cannot be read, is of no known format, or has no job that can be replayed.
        TooLarge: it is larger than can be read.
    """
    if nodes is not None:
        require_between("nodes", nodes, 1, 10_000_000)
    if cores_per_node is not None:
        require_between("cores_per_node", cores_per_node, 1, 1_000_000)
    known = format or _guess(path)
    if cores_per_node is not None and known is not TraceFormat.SWF:
        raise InvalidValue(
            "cores_per_node", f"is for traces that count processors; {path} is {known}, of nodes"
        )
    rows, facts = _read(known, read_lines(path), f"{path.name} ({known})", nodes, cores_per_node)
    return mend(rows, facts)


def _read(
    known: TraceFormat,
    lines: Iterable[tuple[int, str]],
    source: str,
    nodes: int | None,
    cores_per_node: int | None,
) -> tuple[Rows, Facts]:
    match known:
        case TraceFormat.SWF:
            return read_swf(lines, source, nodes=nodes, cores_per_node=cores_per_node)
        case TraceFormat.ALCF:
            return read_alcf(lines, source, nodes=nodes)
        case TraceFormat.SLURM:
            return read_slurm(lines, source, nodes=nodes)
        case TraceFormat.PBS:
            return read_pbs(lines, source, nodes=nodes)


def _guess(path: Path) -> TraceFormat:
    head = [line for _, line in islice(read_lines(path), _HEAD)]
    for known, looks_like in _LOOKS_LIKE.items():
        if looks_like(head):
            return known
    raise InvalidValue(
        str(path),
        "is of no known format: Standard Workload Format, ALCF's job log, PBS accounting log, or an export of Slurm's "
        "accounting with its header (sacct -P, without -n); say which one it is with --format",
    )
