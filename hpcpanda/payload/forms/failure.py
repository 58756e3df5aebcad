"""Telling a user what went wrong in the user's code: short, and about that code only."""

from __future__ import annotations

import importlib
import linecache
import signal
from pathlib import Path
from types import TracebackType

from hpcpanda.domain.errors import PayloadFailed

MAX_TEXT = 2000
"""Characters of a failure's text; it travels with every failed range."""
_FRAMES = 4
_NOT_USER_CODE = (str(Path(__file__).parents[2]), str(Path(importlib.__file__).parent), "<frozen importlib")


def clip(text: str, limit: int = MAX_TEXT) -> str:
    """The text without control characters, its middle left out when it is longer than ``limit``."""
    printable = "".join(c if c.isprintable() or c == "\n" else "?" for c in text[: 4 * limit]).strip()
    if len(printable) <= limit:
        return printable
    return f"{printable[: limit // 2]} ... {printable[-limit // 2 :]}"


def from_exception(doing: str, error: BaseException) -> PayloadFailed:
    """A failure that names the exception, its message and the last lines of user code it passed."""
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - user code may fail in telling that it failed
        message = f"<its message cannot be shown: {type(broken).__name__}>"
    head = clip(f"{doing}: {type(error).__name__}: {message}", MAX_TEXT // 2)
    where = clip("\n".join(_user_frames(error.__traceback__)), MAX_TEXT // 2)
    return PayloadFailed(f"{head}\n  {where}" if where else head)


def _user_frames(traceback: TracebackType | None) -> list[str]:
    lines: list[str] = []
    while traceback is not None:
        code, number = traceback.tb_frame.f_code, traceback.tb_lineno
        file = code.co_filename
        if not file.startswith(_NOT_USER_CODE):
            source = linecache.getline(file, number).strip()
            lines.append(f"  {file}:{number} in {code.co_name}" + (f": {source}" if source else ""))
        traceback = traceback.tb_next
    return lines[-_FRAMES:]


def ending(returncode: int) -> str:
    """How a process ended, in words, from ``Popen.returncode``."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by signal {-returncode} ({signal.Signals(-returncode).name})"
    except ValueError:
        return f"killed by signal {-returncode}"
