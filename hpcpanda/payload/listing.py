"""The files of a task's events, of which more may be listed while it runs.

Of a task that reads a dataset an edge knows only the files of the events that it was given. It keeps them in a *listing*,
a file of its spool that is written before events are handed out. A worker that is handed an event of which it knows no
file reads the listing again: no other message is needed, and the file system is asked once a worker and lease.
"""

from __future__ import annotations

import contextlib
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.inputs import InputFile, Inputs
from hpcpanda.events.adapter import Adapter

PATIENCE_S: Final = 20.0
"""A shared file system may show the new listing so late."""
_NAP_S: Final = 0.25
LISTING: Final[Adapter[tuple[InputFile, ...]]] = Adapter(tuple[InputFile, ...])
"""The content of a listing: files that say where they begin, in order."""


def load_listing(path: Path) -> tuple[InputFile, ...]:
    """The files of a listing.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no listing.
    """
    return LISTING.validate_json(path.read_bytes())


class FileTable:
    """Finds the file of an event."""

    def __init__(self, inputs: Inputs) -> None:
        self._listing = Path(inputs.listing) if inputs.listing is not None else None
        self.files: list[InputFile] = []
        self.starts = array("q")
        """Event number of the first entry of each file, in order."""
        self.ends = array("q")
        """The event after the last entry of each."""
        self._set(dict(zip(inputs.starts, inputs.files, strict=True)))

    def find(self, event: int) -> int:
        """Place of the file that has an event.

        Raises:
            ValueError: no file has it.
            PayloadFailed: no file that is listed has it.
        """
        place = bisect_right(self.ends, event)
        if place < len(self.ends) and self.starts[place] <= event:
            return place
        if self._listing is None:
            last = self.ends[-1] if self.ends else 0
            raise ValueError(f"event {event} is outside the event space [0, {last})")
        return self._wait_for(event, self._listing)

    def _wait_for(self, event: int, listing: Path) -> int:
        patience = time.monotonic() + PATIENCE_S
        while True:
            problem = self._read(listing)
            place = bisect_right(self.ends, event)
            if place < len(self.ends) and self.starts[place] <= event:
                return place
            if time.monotonic() > patience:
                raise PayloadFailed(f"{problem or listing}: lists no file that has event {event}")
            time.sleep(_NAP_S)

    def _read(self, listing: Path) -> str | None:
        """Take in what is listed, besides what is known: ranges in hand may need files that are listed no more."""
        try:
            files = load_listing(listing)
        except (OSError, ValueError) as error:
            return f"{listing} cannot be read ({error})"
        self._set(dict(zip(self.starts, self.files, strict=True)) | _placed(files))
        return None

    def _set(self, files: dict[int, InputFile]) -> None:
        self.starts = array("q", sorted(files))
        self.files = [files[start] for start in self.starts]
        self.ends = array("q", (s + f.events for s, f in zip(self.starts, self.files, strict=True)))


def _placed(files: Iterable[InputFile]) -> dict[int, InputFile]:
    return {file.first: file for file in files if file.first is not None}


class InputFolders:
    """The folders of a task's input files, as far as they are known."""

    def __init__(self, inputs: Inputs | None) -> None:
        listing = inputs.listing if inputs is not None else None
        self._listing = Path(listing) if listing is not None else None
        self._read: int | None = None
        self._known = dict.fromkeys(_folder(file) for file in (inputs.files if inputs is not None else ()))

    def now(self) -> tuple[str, ...]:
        """All that are known now; a listing that has changed is read."""
        if self._listing is not None:
            with contextlib.suppress(OSError, ValueError):
                changed = self._listing.stat().st_mtime_ns
                if changed != self._read:
                    self._known |= dict.fromkeys(_folder(file) for file in load_listing(self._listing))
                    self._read = changed
        return tuple(self._known)


def _folder(file: InputFile) -> str:
    return str(PurePosixPath(file.path).parent)
