"""Short notes between the dispatchers over one database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Heard = Callable[[str], None]
"""Called with the text of a note; with an empty one when notes may have been missed."""

MAX_NOTE = 4000
"""Longest note, characters of ASCII."""


class Wire(Protocol):
    """Carries notes to the other dispatchers over the same database, and theirs to this one.

    A note is a hint and never the only record of anything: it arrives soon, perhaps late, perhaps merged with an
    equal one, perhaps not at all. One's own notes are not heard.
    """

    def send(self, channel: str, text: str) -> None:
        """Tell the other dispatchers; comes back at once."""

    def listen(self, channel: str, heard: Heard) -> None:
        """Call ``heard`` for every note of the channel, from now on, in the event loop."""

    async def open(self) -> None:
        """Begin to carry notes. Does not wait until they can be carried."""

    async def close(self) -> None:
        """Carry no more."""


class NoWire:
    """For a database that only one dispatcher uses: there is nobody to tell."""

    def send(self, channel: str, text: str) -> None:
        """Nobody hears it."""

    def listen(self, channel: str, heard: Heard) -> None:
        """Nothing will be heard."""

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""
