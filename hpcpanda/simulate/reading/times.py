"""Dates and durations as batch systems write them."""

from __future__ import annotations

from datetime import UTC, datetime, time
from functools import lru_cache
from typing import Final

from hpcpanda.simulate.reading.rows import UNKNOWN, known

_UNKNOWN_WORDS = frozenset({"", "unknown", "none", "n/a", "invalid", "unlimited", "partition_limit"})
_PLAIN: Final = len("2026-08-01T12:00:00")


def moment(text: str) -> float:
    """Unix seconds of a date such as ``2026-08-01T12:00:00``, or of a number; a date without zone is taken as UTC.

    Raises:
        ValueError: it is neither a date nor a word for an unknown one.
    """
    if len(text) == _PLAIN and text[10] == "T" and text[13] == text[16] == ":":
        return _day(text[:10]) + _time_of_day(text[11:])
    if text.lower() in _UNKNOWN_WORDS:
        return UNKNOWN
    if text.isdigit():
        return known(text)
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


@lru_cache(maxsize=10_000)
def _day(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@lru_cache(maxsize=86_400)
def _time_of_day(text: str) -> float:
    of_day = time.fromisoformat(text)
    return of_day.hour * 3600.0 + of_day.minute * 60.0 + of_day.second


@lru_cache(maxsize=100_000)
def duration(text: str) -> float:
    """Seconds of ``[DAYS-]HH:MM:SS``, ``HH:MM:SS`` with any number of hours, ``MM:SS``, ``DAYS-HH`` or a number of seconds.

    Raises:
        ValueError: it is neither that nor a word for an unknown one.
    """
    if text.lower() in _UNKNOWN_WORDS:
        return UNKNOWN
    days, dash, rest = text.rpartition("-")
    parts = [known(part) for part in rest.split(":")]
    if len(parts) > 3 or (dash and not days):
        raise ValueError(text)
    # With days, the parts begin at hours (sbatch(1), --time); without, they end at seconds.
    scales = (3600.0, 60.0, 1.0)[: len(parts)] if dash else (3600.0, 60.0, 1.0)[-len(parts) :]
    seconds = sum(part * scale for part, scale in zip(parts, scales, strict=True))
    return seconds + (known(days) * 86_400 if dash else 0.0)
