"""Small checks shared by the domain's data classes; each raises :class:`InvalidValue` naming the field."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcpanda.domain.errors import InvalidValue

MAX_EVENTS = 2**63 - 1
"""Largest end of an event space: events are counted in signed 64-bit integers everywhere."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def require_name(field: str, value: str) -> None:
    """Accept 1-128 characters of letters, digits, ``.``, ``_`` and ``-``, starting with a letter or digit."""
    if not _NAME.fullmatch(value):
        raise InvalidValue(
            field,
            f"{value[:140]!r} is not a name; use 1-128 letters, digits, '.', '_' or '-', beginning with a letter or digit",
        )


def require_between(field: str, value: float, low: float, high: float) -> None:
    """Accept ``low <= value <= high``; NaN is refused."""
    if not low <= value <= high:
        raise InvalidValue(field, f"{value} is outside {low}..{high}")


def require_nonempty(field: str, value: Sequence[object]) -> None:
    """Accept anything that has at least one element."""
    if not value:
        raise InvalidValue(field, "must not be empty")
