"""The files that a task is cut over, wherever they are listed. Their paths are those at a site, where one is said."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

from hpcpanda.dispatcher.store.catalogue_windows import DatasetWindows, WindowFile
from hpcpanda.domain.inputs import Inputs
from hpcpanda.domain.splitting import FileSpan


class Files(Protocol):
    """Files in an order that never changes; their entries, one file after the other, are the event space."""

    @property
    def count(self) -> int:
        """Number of files."""
        ...

    @property
    def events(self) -> int:
        """Entries of all of them together."""
        ...

    async def files_between(self, first: int, last: int) -> Sequence[FileSpan]:
        """Files ``first`` to before ``last``."""
        ...

    async def files_covering(self, first_event: int, last_event: int) -> Sequence[FileSpan]:
        """All files that hold any of these events, of which there is one at least."""
        ...


class InlineFiles:
    """Files listed in the task itself."""

    def __init__(self, inputs: Inputs) -> None:
        self._files = inputs.files
        self._starts = list(accumulate((f.events for f in inputs.files), initial=0))

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self._files)

    @property
    def events(self) -> int:
        """Entries of all of them together."""
        return self._starts[-1]

    async def files_between(self, first: int, last: int) -> Sequence[FileSpan]:
        """Files ``first`` to before ``last``."""
        return self._spans(first, min(last, self.count))

    async def files_covering(self, first_event: int, last_event: int) -> Sequence[FileSpan]:
        """All files that hold any of these events, of which there is one at least."""
        return self._spans(
            bisect_right(self._starts, first_event) - 1, bisect_right(self._starts, last_event - 1)
        )

    def _spans(self, first: int, last: int) -> list[FileSpan]:
        return [
            FileSpan(
                ordinal=n,
                first_event=self._starts[n],
                path=self._files[n].path,
                events=self._files[n].events,
                size=self._files[n].size,
            )
            for n in range(first, last)
        ]


class DatasetFiles:
    """Files of a dataset, as many as it had when it was looked at."""

    def __init__(
        self, windows: DatasetWindows, dataset_id: int, *, count: int, events: int, site: str | None
    ) -> None:
        self._windows = windows
        self._dataset_id = dataset_id
        self._count = count
        self._events = events
        self._site = site

    @property
    def count(self) -> int:
        """Number of files."""
        return self._count

    @property
    def events(self) -> int:
        """Entries of all of them together."""
        return self._events

    async def files_between(self, first: int, last: int) -> Sequence[FileSpan]:
        """Files ``first`` to before ``last``."""
        found = await self._windows.files_between(self._dataset_id, first, last, site=self._site)
        return [_span(file) for file in found]

    async def files_covering(self, first_event: int, last_event: int) -> Sequence[FileSpan]:
        """All files that hold any of these events, of which there is one at least."""
        found = await self._windows.files_covering(self._dataset_id, first_event, last_event, site=self._site)
        return [_span(file) for file in found]


def _span(file: WindowFile) -> FileSpan:
    return FileSpan(
        ordinal=file.ordinal, first_event=file.first, events=file.events, path=file.path, size=file.size
    )
