"""Long lists of keys, in portions that a statement can carry."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")

CHUNK = 500
"""Values in one ``IN`` list."""


def chunks(values: Collection[_T]) -> Iterator[list[_T]]:
    """The values in lists of at most ``CHUNK``."""
    it = iter(values)
    while portion := list(islice(it, CHUNK)):
        yield portion
