"""A payload that needs a library which nobody has."""

from __future__ import annotations

import a_library_that_nobody_has

from hpcpanda.payload import RangeWork


def generate(work: RangeWork) -> bytes:
    """Never reached."""
    return bytes(a_library_that_nobody_has.events(work))
