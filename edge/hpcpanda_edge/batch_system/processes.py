"""Processes of allocations on this machine, known by the allocation's folder among their arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psutil


def is_of(pid: int | None, folder: Path) -> bool:
    """Whether a process belongs to the allocation with this folder."""
    if pid is None:
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and _names(process.cmdline(), folder)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def processes_of(folders: Sequence[Path]) -> dict[Path, list[int]]:
    """Living processes of this user, by the allocation's folder."""
    found: dict[Path, list[int]] = {folder: [] for folder in folders}
    if not folders:
        return found
    me = os.getuid()
    for process in psutil.process_iter():
        try:
            if process.uids().real != me or process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        for folder in folders:
            if _names(command, folder):
                found[folder].append(process.pid)
    return found


def _names(command: Sequence[str], folder: Path) -> bool:
    own, packs = str(folder), f"{folder}/packs/"
    return any(word == own or word.startswith(packs) for word in command)
