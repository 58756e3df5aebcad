"""What the readers of all formats fill: raw jobs in columns, and the flaws met on the way."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from enum import StrEnum
from math import nan
from typing import Final, Self

import numpy as np

from hpcpanda.domain.errors import TooLarge
from hpcpanda.simulate.trace import Flaw, Floats, Ints

MAX_JOBS: Final = 20_000_000
"""Jobs of one trace; more would not fit into the memory of a small machine."""
UNKNOWN: Final = nan
_LARGEST: Final = 1e11
"""More than any time or number of processors: seconds since 1970 reach it after the year 5000."""


class FlawKind(StrEnum):
    """What can be wrong with a trace; the text behind each is what is done about it."""

    remedy: str

    def __new__(cls, value: str, remedy: str) -> Self:
        """With the remedy beside the value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.remedy = remedy
        return member

    UNPARSABLE = "unparsable", "The line was left out."
    EXTRA_COLUMNS = (
        "extra-columns",
        "Columns behind those of the standard were ignored, but for lists of nodes.",
    )
    PARTIAL_EXECUTION = (
        "partial-execution",
        "Left out: a line for the whole job has the sum of its partial executions.",
    )
    JOB_STEPS = "job-steps", "Left out: steps run inside the nodes of their job."
    NEVER_STARTED = "never-started", "Left out: a job that did not run held no node."
    STILL_RUNNING = "still-running", "Taken as ended when the trace was written."
    UNKNOWN_SUBMIT = "unknown-submit", "Left out: it cannot be replayed without its time of submission."
    UNKNOWN_RUN_TIME = "unknown-run-time", "Left out: it cannot be replayed without its run time."
    ZERO_RUN_TIME = "zero-run-time", "Taken as 1 second, the resolution of the trace."
    UNKNOWN_START = (
        "unknown-start",
        "Kept: the replay decides when it starts; the real start is not compared.",
    )
    START_BEFORE_SUBMIT = "start-before-submit", "The real start was taken as unknown."
    UNKNOWN_NODES = "unknown-nodes", "Left out: neither what it had nor what it asked for is told."
    REQUESTED_NODES = "requested-nodes", "What it asked for was taken: what it had is not told."
    UNKNOWN_REQUEST = (
        "unknown-request",
        "The run time was taken for the walltime asked for: windows are told better than they were.",
    )
    OVERRUN = "overrun", "It ran longer than it asked for; the walltime asked for was raised to the run time."
    WAITED_BEFORE = (
        "waited-before",
        "Submitted before the first job of the trace started; taken as submitted then, to be in the queue at the beginning.",
    )
    OUT_OF_ORDER = "out-of-order", "Jobs were put in order of submission."
    DUPLICATE = "duplicate", "Left out: the same job with the same times was there already."
    TOO_WIDE = "too-wide", "Left out: it asks for more nodes than the machine has and could never start."
    PROCESSORS_AS_NODES = (
        "processors-as-nodes",
        "Each processor was taken for a node, because cores a node are not told; say how many there are.",
    )
    ROUNDED_TO_NODES = (
        "rounded-to-nodes",
        "It had a part of a node's processors; it was given whole nodes.",
    )
    SHARED_NODES = (
        "shared-nodes",
        "It shared a node with another job at the time; each was given whole nodes.",
    )
    MACHINE_SIZE = (
        "machine-size",
        "The trace does not tell the machine's nodes; the most that ran at once was taken.",
    )


class Notes:
    """Counts flaws by kind, with the line of the first."""

    def __init__(self) -> None:
        self._found: dict[FlawKind, list[int]] = {}
        self._remedies: dict[FlawKind, str] = {}

    def add(self, kind: FlawKind, line: int) -> None:
        """One more."""
        found = self._found.setdefault(kind, [0, line])
        found[0] += 1
        found[1] = min(found[1], line)

    def add_all(self, kind: FlawKind, lines: Ints, *, remedy: str | None = None) -> None:
        """One more for each of the lines; a remedy says more than the kind's own."""
        if len(lines):
            found = self._found.setdefault(kind, [0, int(lines.min())])
            found[0] += len(lines)
            found[1] = min(found[1], int(lines.min()))
            if remedy is not None:
                self._remedies[kind] = remedy

    def flaws(self) -> tuple[Flaw, ...]:
        """In order of the kinds."""
        return tuple(
            Flaw(
                kind=kind,
                count=self._found[kind][0],
                first_line=self._found[kind][1],
                remedy=self._remedies.get(kind, kind.remedy),
            )
            for kind in FlawKind
            if kind in self._found
        )


class Rows:
    """Raw jobs as they stand in the file: Unix seconds or seconds of the trace, nodes or processors; NaN is unknown."""

    def __init__(self) -> None:
        self.notes = Notes()
        self._lines, self._jobs = array("q"), array("q")
        self._submit, self._start, self._run = array("d"), array("d"), array("d")
        self._nodes, self._requested = array("d"), array("d")

    def __len__(self) -> int:
        return len(self._lines)

    def add(
        self, line: int, job: str, *, submit: float, start: float, run: float, nodes: float, requested: float
    ) -> None:
        """One job that ran, or may have run.

        Raises:
            TooLarge: these are too many.
        """
        if len(self._lines) >= MAX_JOBS:
            raise TooLarge(f"line {line}: more than {MAX_JOBS:,} jobs; cut the trace into parts")
        self._lines.append(line)
        self._jobs.append(hash(job))
        self._submit.append(submit)
        self._start.append(start)
        self._run.append(run)
        self._nodes.append(nodes)
        self._requested.append(requested)

    def columns(self) -> Columns:
        """As NumPy arrays."""
        lines, jobs = (np.array(c, dtype=np.int64) for c in (self._lines, self._jobs))
        floats = (self._submit, self._start, self._run, self._nodes, self._requested)
        return Columns(lines, jobs, *(np.array(c, dtype=np.float64) for c in floats))


class Columns:
    """The columns of raw jobs, cut together."""

    __slots__ = ("jobs", "lines", "nodes", "requested", "run", "start", "submit")

    def __init__(
        self,
        lines: Ints,
        jobs: Ints,
        submit: Floats,
        start: Floats,
        run: Floats,
        nodes: Floats,
        requested: Floats,
    ) -> None:
        self.lines, self.jobs = lines, jobs
        self.submit, self.start, self.run = submit, start, run
        self.nodes, self.requested = nodes, requested

    def keep(self, rows: Sequence[int] | np.ndarray[tuple[int], np.dtype[np.bool_ | np.int64]]) -> None:
        """Only these rows, in this order."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name)[rows])


def number(text: str) -> float:
    """A finite number of a reasonable size.

    Raises:
        ValueError: it is none.
    """
    value = float(text)
    if not -_LARGEST < value < _LARGEST:
        raise ValueError(text)
    return value


def known(text: str) -> float:
    """A number that is not negative; unknown when it is empty or negative, as -1 is.

    Raises:
        ValueError: it is no number.
    """
    if not text:
        return UNKNOWN
    value = number(text)
    return value if value >= 0 else UNKNOWN
