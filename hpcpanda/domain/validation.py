"""Small checks shared by the domain's data classes; each raises :class:`InvalidValue` naming the field."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcpanda.domain.errors import InvalidValue

MAX_EVENTS = 2**63 - 1
"""Largest end of an event space: events are counted in signed 64-bit integers everywhere."""

MAX_PATH = 4096
"""Longest path, characters; Linux takes as many bytes (``PATH_MAX``)."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
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


def require_path(field: str, value: str) -> None:
    """Accept a path of 1-4096 characters without control characters and without ``..``."""
    if not 0 < len(value) <= MAX_PATH or _CONTROL.search(value) or ".." in value.split("/"):
        raise InvalidValue(
            field,
            f"{value[:140]!r} is no path; use 1-{MAX_PATH} characters, no control characters and no '..'",
        )


def plain_text(text: str, limit: int) -> str:
    """What a program has said, such that it can be stored and sent anywhere: NUL and halves of characters are replaced by
    U+FFFD, and it is cut to ``limit`` characters."""
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return (
        cut.encode("utf-8", "surrogatepass")
        .decode("utf-8", "replace")
        .replace("\0", "\N{REPLACEMENT CHARACTER}")
    )
