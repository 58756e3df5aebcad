"""The port of output formats: what a merge needs to know of each."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from hpcpanda.merge.layout import Layout
from hpcpanda.merge.plan import Plan


class Merger(Protocol):
    """One output format. The copying itself is the same for all."""

    def lay_out(self, plan: Plan, temporary: Path) -> Layout:
        """Create the file without its data, and say where the data goes.

        Raises:
            MergeFailed: what the payload returned does not suit the format.
        """
        ...

    def preview(self, plan: Plan, layout: Layout, output: Path) -> str | None:
        """Make the content readable before it is copied, if the format can; a note when not."""
        ...

    def inspect(self, plan: Plan, layout: Layout, temporary: Path) -> None:
        """Open the written file as any reader would and check its shape.

        Raises:
            MergeFailed: it is not what was meant.
        """
        ...
