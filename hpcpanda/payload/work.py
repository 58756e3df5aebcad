"""What a callable payload is handed: one range of events and everything needed to work on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcpanda.domain.inputs import Inputs
from hpcpanda.domain.payloads import Scalar
from hpcpanda.payload.listing import FileTable


@dataclass(frozen=True)
class InputSlice:
    """The part of one input file that a range covers, in the file's own entry numbers."""

    path: str
    """Absolute path of the file."""
    first: int
    """First entry to read."""
    last: int
    """The entry after the last one to read."""
    events_offset: int = 0
    """Event number of the file's entry 0: event = entry + ``events_offset``."""

    @property
    def entries(self) -> range:
        """Entry numbers to read from the file."""
        return range(self.first, self.last)

    @property
    def events(self) -> range:
        """The same entries as event numbers of the task."""
        return range(self.first + self.events_offset, self.last + self.events_offset)


@dataclass(frozen=True)
class RangeWork:
    """One call's worth of work: the events ``[first, last)`` of a task.

    Whatever a payload draws at random it must derive from ``seed`` and the event number
    (:func:`hpcpanda.payload.philox`, :func:`hpcpanda.payload.pythia_seed`); then an event does not
    depend on the range it was in.
    """

    first: int
    """First event."""
    last: int
    """The event after the last one."""
    seed: int = 1
    """The task's seed."""
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    """The payload's settings, read-only."""
    state: Any = None
    """What the set-up returned; shared by all workers of a node as of the moment they were forked."""
    inputs: tuple[InputSlice, ...] = ()
    """The covered part of each input file, in event order; empty for a task without inputs."""

    @property
    def events(self) -> range:
        """The event numbers, in order."""
        return range(self.first, self.last)

    def __len__(self) -> int:
        return self.last - self.first


class InputTable:
    """Looks up which entries of which files a range of events covers."""

    def __init__(self, inputs: Inputs) -> None:
        self._table = FileTable(inputs)

    def slices(self, first: int, last: int) -> tuple[InputSlice, ...]:
        """The covered part of each file, in event order. The range must lie in the event space.

        Raises:
            PayloadFailed: a file of the range is not listed.
        """
        table = self._table
        found = []
        while first < last:
            place = table.find(first)
            start, end = table.starts[place], min(last, table.ends[place])
            found.append(InputSlice(table.files[place].path, first - start, end - start, start))
            first = end
        return tuple(found)
