"""No batch system to ask."""

from __future__ import annotations

from typing import Final

from hpcpanda_edge.windows.ports import Sighting

_UNKNOWN: Final = "no window probe is set up for this site"


class NoProbe:
    """Knows of no windows, and says so."""

    def __init__(self, reason: str = _UNKNOWN) -> None:
        self._sighting = Sighting(unknown=reason)

    async def look(self) -> Sighting:
        """Nothing is known."""
        return self._sighting
