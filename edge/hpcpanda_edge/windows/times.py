"""Times and durations as batch systems print them, with their zone set to UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_DURATION: Final = re.compile(r"(?:([0-9]{1,7})-)?([0-9]{1,9})(?::([0-9]{1,2}))?(?::([0-9]{1,2}))?")
_ISO: Final = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2})(?::([0-9]{2}))?")
_CTIME: Final = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) +([0-9]{1,2}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([0-9]{4})"
)
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH_END: Final = 253_402_300_799
"""Last second of the year 9999."""


def slurm_duration(text: str) -> float | None:
    """Seconds of ``days-hours:minutes:seconds`` and its shorter forms; None for UNLIMITED, N/A and the like.

    As in sbatch(1), "--time": ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``,
    ``days-hours:minutes``, ``days-hours:minutes:seconds``.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        return None
    days, *rest = found.groups()
    numbers = [int(n) for n in rest if n is not None]
    if days is not None or len(numbers) == 3:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    return float(int(days or 0) * 86_400 + hours * 3600 + minutes * 60 + seconds)


def clock_duration(text: str) -> float | None:
    """Seconds of ``hours:minutes:seconds``, as PBS prints walltimes; None for anything else."""
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,2})(?::([0-9]{1,2}))?", text.strip())
    if found is None:
        return None
    return float(int(found.group(1)) * 3600 + int(found.group(2)) * 60 + int(found.group(3) or 0))


def iso_time(text: str) -> datetime | None:
    """``2026-11-20T14:30:00``, meant in UTC; None for N/A, Unknown and the like."""
    found = _ISO.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(n or 0) for n in found.groups())
    return _moment(year, month, day, hour, minute, second)


def ctime_time(value: object) -> datetime | None:
    """``Fri Nov 20 14:30:00 2026``, meant in UTC, or seconds since 1970; None for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return datetime.fromtimestamp(value, UTC) if 0 <= value <= _EPOCH_END else None
    text = str(value).strip() if isinstance(value, str) else ""
    if re.fullmatch("[0-9]{1,12}", text):
        return ctime_time(int(text))
    found = _CTIME.fullmatch(text)
    if found is None or found.group(1) not in _MONTHS:
        return None
    month = _MONTHS.index(found.group(1)) + 1
    day, hour, minute, second, year = (int(n) for n in found.groups()[1:])
    return _moment(year, month, day, hour, minute, second)


def _moment(year: int, month: int, day: int, hour: int, minute: int, second: int) -> datetime | None:
    try:
        return datetime(year, month, day, hour, minute, min(second, 59), tzinfo=UTC)
    except ValueError:
        return None
