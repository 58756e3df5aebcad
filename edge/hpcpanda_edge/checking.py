"""Look at a site as far as that goes without starting anything."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcpanda.domain.site import Site


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    field: str
    ok: bool
    text: str


def check_site(site: Site) -> Iterator[Finding]:
    """Check what the site file names: spool, launcher, executor."""
    yield _spool(Path(site.spool))
    yield _launcher(site.launcher.command[0])
    yield _executor(site.scheduler.executor)


def _spool(spool: Path) -> Finding:
    try:
        spool.mkdir(parents=True, exist_ok=True)
        probe = spool / f".check-{os.getpid()}"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
        free = shutil.disk_usage(spool).free
    except OSError as problem:
        return Finding(field="spool", ok=False, text=f"{spool}: {problem.strerror}")
    return Finding(field="spool", ok=True, text=f"{spool} is writable, {free / 2**30:.1f} GiB free")


def _launcher(program: str) -> Finding:
    beside = Path(sys.executable).parent / program
    found = str(beside) if beside.exists() else shutil.which(program)
    if found is None:
        text = f"{program} is neither beside {sys.executable} nor on PATH"
        return Finding(field="launcher.command", ok=False, text=text)
    return Finding(field="launcher.command", ok=True, text=f"{program} is {found}")


def _executor(name: str) -> Finding:
    import psij

    known = sorted(psij.JobExecutor.get_executor_names())
    if name not in known:
        text = f"PSI/J has no executor {name!r}, only {', '.join(known)}"
        return Finding(field="scheduler.executor", ok=False, text=text)
    return Finding(field="scheduler.executor", ok=True, text=f"PSI/J has {name}")
