"""Node names written short, as Slurm does: ``node[01-04,07]``, ``rack[1-2]n[0-9]``, ``a,b``.

The grammar is that of scontrol(1), "show hostnames". A short text can name more nodes than memory holds, so the
number of names is bounded before any is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Final

from hpcpanda.domain.errors import InvalidValue

MAX_HOSTS: Final = 100_000
"""More nodes than a batch system has."""
_ITEM: Final = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")
_PART: Final = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE: Final = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_NOTHING: Final = ("", "(null)", "N/A", "None", "none")
_LONGEST: Final = 10_000
"""Characters of a single item; bounds the length of a name."""


def expand(text: str, *, limit: int = MAX_HOSTS) -> tuple[str, ...]:
    """The names in order, repetitions kept.

    Raises:
        InvalidValue: not a host list, or one of more names than the limit.
    """
    text = text.strip()
    names: list[str] = []
    end = 0
    for found in _ITEM.finditer(text):
        if found.start() > end and text[end : found.start()] != ",":
            raise InvalidValue("host list", f"cannot read {text[end : end + 60]!r}")
        names.extend(_expand_item(found.group(), limit - len(names)))
        end = found.end()
    if end != len(text):
        raise InvalidValue("host list", f"cannot read {text[end : end + 60]!r}")
    return tuple(names)


def _expand_item(item: str, limit: int) -> Iterator[str]:
    if len(item) > _LONGEST:
        raise InvalidValue("host list", f"{item[:60]!r}... is too long")
    parts: list[list[str]] = []
    count = 1
    for brackets, plain in _PART.findall(item):
        alternatives = [plain] if plain else _numbers(brackets, limit)
        count *= len(alternatives)
        if count > limit:
            raise InvalidValue("host list", f"{item[:60]!r} names too many nodes")
        parts.append(alternatives)
    return ("".join(words) for words in product(*parts))


def _numbers(ranges: str, limit: int) -> list[str]:
    """The numbers inside a pair of brackets, with their leading zeros."""
    numbers: list[str] = []
    for text in ranges.split(","):
        found = _RANGE.fullmatch(text.strip())
        if found is None:
            raise InvalidValue("host list", f"{text[:60]!r} is not a number or a range")
        first, last = found.group(1), found.group(2) or found.group(1)
        size = int(last) - int(first) + 1
        if size < 1 or size > limit - len(numbers):
            raise InvalidValue("host list", f"{text[:60]!r} names no or too many nodes")
        numbers.extend(str(n).zfill(len(first)) for n in range(int(first), int(last) + 1))
    return numbers


class Expander:
    """Expands the host lists of one output, and no more names in all than a bound."""

    def __init__(self, total: int = 10 * MAX_HOSTS) -> None:
        self._left = total

    def names(self, text: str) -> frozenset[str] | None:
        """The names; None when there are none, too many, or the text is no host list."""
        if text.strip() in _NOTHING or self._left <= 0:
            return None
        try:
            names = expand(text, limit=min(self._left, MAX_HOSTS))
        except InvalidValue:
            self._left -= MAX_HOSTS // 10  # what finding out may have cost
            return None
        self._left -= len(names)
        return frozenset(names)
