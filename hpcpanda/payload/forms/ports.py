"""What every payload form offers to the worker that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

Contain = Callable[[list[str], Path, Mapping[str, str]], list[str]]
"""``contain(words, work_folder, variables)``: the words that run a program with these variables in the task's container."""


class Runner(Protocol):
    """Runs ranges of one task in one worker process, one at a time."""

    def run(self, first: int, last: int) -> object:
        """The output of the events ``[first, last)``: a mapping of arrays, or bytes, as yet unchecked.

        Raises:
            PayloadFailed: user code did not deliver; the runner is ready for the next range.
        """
        ...

    def close(self) -> None:
        """End whatever the runner started. Never raises."""
        ...


class Prepared(Protocol):
    """A payload made ready once a node, before workers are forked."""

    def runner(self, work_folder: Path) -> Runner:
        """A runner for the worker process that calls this; ``work_folder`` exists and is its own.

        Raises:
            PayloadFailed: the worker cannot get ready.
        """
        ...
