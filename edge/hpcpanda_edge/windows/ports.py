"""The port of the window probes, and what a look gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, overload

from hpcpanda.packing.windows import BackfillWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting(Sequence[BackfillWindow]):
    """The windows of one look; or none, and why nothing is known."""

    windows: tuple[BackfillWindow, ...] = ()
    unknown: str | None = None
    """Why nothing is known. None: it is known that there are these windows and no others."""

    def __len__(self) -> int:
        return len(self.windows)

    @overload
    def __getitem__(self, index: int) -> BackfillWindow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[BackfillWindow, ...]: ...
    def __getitem__(self, index: int | slice) -> BackfillWindow | tuple[BackfillWindow, ...]:
        return self.windows[index]

    @property
    def known(self) -> tuple[BackfillWindow, ...] | None:
        """The windows as the planning rules take them: None when nothing is known."""
        return self.windows if self.unknown is None else None


class WindowProbe(Protocol):
    """Something that can tell which nodes are free now, and for how long."""

    async def look(self) -> Sighting:
        """The windows as of now. Never raises: what goes wrong is the reason why nothing is known."""
        ...


class WindowReader(Protocol):
    """One way to ask a batch system; made into a probe by :class:`~hpcpanda_edge.windows.paced.PacedProbe`."""

    async def read(self) -> tuple[BackfillWindow, ...]:
        """Ask now.

        Raises:
            Unavailable: the batch system's program is missing, fails, or does not answer in time.
            CorruptData: the answer cannot be understood.
        """
        ...
