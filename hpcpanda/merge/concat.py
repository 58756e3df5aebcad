"""The ranges' bytes one after the other."""

from __future__ import annotations

from pathlib import Path

from hpcpanda.domain.errors import MergeFailed
from hpcpanda.events.columns import BYTES
from hpcpanda.merge.digest import Stream
from hpcpanda.merge.files import write_durable
from hpcpanda.merge.layout import Cells, Layout
from hpcpanda.merge.plan import Plan


def byte_cells(plan: Plan) -> Cells:
    """Ranges of plain bytes.

    Raises:
        MergeFailed: the payload returned columns.
    """
    if plan.schema != BYTES:
        names = ", ".join(repr(c.name) for c in plan.schema.columns[:5])
        raise MergeFailed(
            f"the payload returned columns ({names}); this output format needs bytes, or choose hdf5"
        )
    return Cells.of(0, (1,), (plan.ranges.length,))


class ConcatMerger:
    """Plain concatenation."""

    def lay_out(self, plan: Plan, temporary: Path) -> Layout:
        """An empty file to be filled."""
        cells = byte_cells(plan)
        write_durable(temporary, b"")
        return Layout(streams=(Stream(None, cells.size(0)),), cells=cells, bases=(0,))

    def preview(self, plan: Plan, layout: Layout, output: Path) -> str | None:  # noqa: ARG002
        """Nothing to show before the copy."""
        return None

    def inspect(self, plan: Plan, layout: Layout, temporary: Path) -> None:  # noqa: ARG002
        """The size is right."""
        size = temporary.stat().st_size
        if size != layout.streams[0].size:
            raise MergeFailed(f"the output has {size} bytes, {layout.streams[0].size} were meant")
