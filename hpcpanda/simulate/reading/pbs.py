"""Accounting logs of PBS Professional, OpenPBS and Torque: the ``E`` records, written when a job ends.

Source: PBS Professional Reference Guide, "Accounting Log": ``date time;type;identifier;key=value ...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from hpcpanda.simulate.reading.mending import Facts
from hpcpanda.simulate.reading.rows import UNKNOWN, FlawKind, Rows, known
from hpcpanda.simulate.reading.times import duration

_RECORD: Final = re.compile(r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d;[A-Za-z]+;[^;]*;")


def is_pbs(head: Sequence[str]) -> bool:
    """Whether the first lines are records of such a log."""
    lines = [line for line in head if line.strip()]
    return bool(lines) and 2 * sum(bool(_RECORD.match(line)) for line in lines) > len(lines)


def read_pbs(lines: Iterable[tuple[int, str]], source: str, *, nodes: int | None) -> tuple[Rows, Facts]:
    """All jobs that ended; the machine's nodes are not in the log."""
    rows = Rows()
    for at, line in lines:
        if not line.strip():
            continue
        parts = line.rstrip("\r").split(";", 3)
        try:
            _, kind, job, message = parts
            if kind == "E":
                _add(rows, at, job, f" {message} ")
        except ValueError:
            rows.notes.add(FlawKind.UNPARSABLE, at)
    return rows, Facts(source=source, machine_nodes=nodes)


def _add(rows: Rows, at: int, job: str, message: str) -> None:
    start, end = known(_value(message, "start")), known(_value(message, "end"))
    submit = known(_value(message, "qtime") or _value(message, "ctime"))
    # Nodes are held from start to end; the walltime used leaves out time in suspension.
    run = end - start if end > start > 0 else duration(_value(message, "resources_used.walltime"))
    if start == 0:
        rows.notes.add(FlawKind.NEVER_STARTED, at)
        return
    rows.add(
        at,
        job,
        submit=submit,
        start=start,
        run=run,
        nodes=_nodes(message),
        requested=duration(_value(message, "Resource_List.walltime")),
    )


def _value(message: str, key: str) -> str:
    """The value of a key; empty when it is not there."""
    begin = message.find(f" {key}=")
    if begin < 0:
        return ""
    begin += len(key) + 2
    return message[begin : message.index(" ", begin)]


def _nodes(message: str) -> float:
    """Nodes that the job had, else as many as its request says."""
    if hosts := _value(message, "exec_host"):
        return len({place.partition("/")[0] for place in hosts.split("+")})
    if count := _value(message, "Resource_List.nodect"):
        return known(count)
    if select := _value(message, "Resource_List.select"):
        return sum(_chunk(chunk) for chunk in select.split("+"))
    return UNKNOWN


def _chunk(chunk: str) -> float:
    """How many of a chunk of resources: ``4:ncpus=8`` is four, ``ncpus=8`` is one."""
    count = chunk.partition(":")[0]
    return known(count) if count.isdigit() else 1.0
