"""Processes of this machine, looked at while they come and go."""

from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


def living(look: Callable[[psutil.Process], T | None]) -> list[T]:
    """What ``look`` makes of every living process, but None; one that ends while it is looked at is left out.

    A process on its way out has lost its folder or its files before its entry under /proc is gone or says that it
    is a zombie; psutil then lets the plain OSError through (https://github.com/giampaolo/psutil/issues/2418).
    """
    found = []
    for process in psutil.process_iter():
        try:
            if (seen := look(process)) is not None and process.status() != psutil.STATUS_ZOMBIE:
                found.append(seen)
        except (psutil.Error, OSError):
            continue
    return found


def command_of(process: psutil.Process) -> str:
    """The words of a process's command; none of one that has ended."""
    try:
        return " ".join(process.cmdline())
    except (psutil.Error, OSError):
        return ""
