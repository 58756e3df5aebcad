"""Look at a site as far as that goes without starting anything."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from hpcpanda.allocation.spool import Spool
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.site import Site
from hpcpanda_edge.batch_system.choose import submission
from hpcpanda_edge.batch_system.job_script import Submission
from hpcpanda_edge.ports import AllocationJob
from hpcpanda_edge.state_folder import StateFolder
from hpcpanda_edge.submitting import head_command

_PATIENCE_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    field: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A site as it is understood, what was looked at, and what its largest allocation would be submitted with."""

    site: Site
    findings: tuple[Finding, ...]
    submission: Submission | None
    """Not known when the executor cannot be used, or its files not be written."""


CHECKED: TypeAdapter[Checked] = TypeAdapter(Checked)


def check_site(site: Site) -> Checked:
    """Check what the site file names, and make up the largest allocation; call it in the main thread."""
    spool = _spool(Path(site.spool))
    path = _path_after_setup(site)
    findings = [spool]
    if isinstance(path, Finding):
        findings.append(path)
    else:
        findings += [_python(site), _launcher(site, path)]
    would: Submission | None = None
    if spool.ok:
        try:
            would = would_submit(site)
        except InvalidValue as problem:
            findings.append(Finding(field=problem.field, ok=False, text=problem.problem))
        else:
            findings.append(_programs(site.scheduler.executor, would))
    return Checked(site=site, findings=tuple(findings), submission=would)


def would_submit(site: Site) -> Submission:
    """The largest allocation as the batch system would be given it.

    Raises:
        InvalidValue: the executor cannot be used.
        OSError: the spool cannot be written to.
    """
    spool = Spool(Path(site.spool))
    folder = spool.allocation("dry-run").path
    job = AllocationJob(
        allocation_id="dry-run",
        nodes=site.node_limit,
        walltime_s=site.allocation.walltime_s,
        command=head_command(spool.path, folder),
        folder=folder,
    )
    return submission(site.scheduler, StateFolder.of(site.spool).psij, job, gpus=site.nodes.gpus)


def _programs(executor: str, would: Submission) -> Finding:
    """Whether the batch system's own programs are here."""
    if missing := [p for p in dict.fromkeys(would.programs) if shutil.which(p) is None]:
        text = f"{executor} needs {', '.join(missing)}, not on PATH here"
        return Finding(field="scheduler.executor", ok=False, text=text)
    found = ", ".join(dict.fromkeys(would.programs)) or "no batch system"
    return Finding(field="scheduler.executor", ok=True, text=f"PSI/J has {executor}; {found} will do")


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


def _after_setup(site: Site, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of bash as an allocation would: behind the set-up lines, the first that fails ends it."""
    script = "\n".join(("set -e", *site.scheduler.setup, command))
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        timeout=_PATIENCE_S,
        check=False,
    )


def _path_after_setup(site: Site) -> str | Finding:
    """The PATH that the head will see, or what is wrong with the set-up lines."""
    if not site.scheduler.setup:
        return os.environ.get("PATH", os.defpath)
    try:
        done = _after_setup(site, 'printf "\\n%s" "$PATH"')
    except (OSError, subprocess.SubprocessError) as problem:
        return Finding(field="scheduler.setup", ok=False, text=str(problem))
    if done.returncode:
        text = f"ends with {done.returncode} on this node: {_last_line(done.stderr)}"
        return Finding(field="scheduler.setup", ok=False, text=text)
    return done.stdout.rpartition("\n")[2]


def _python(site: Site) -> Finding:
    program = site.scheduler.python or sys.executable
    command = f"exec {shlex.quote(program)} -c 'import hpcpanda.allocation.head'"
    try:
        done = _after_setup(site, command)
    except (OSError, subprocess.SubprocessError) as problem:
        return Finding(field="scheduler.python", ok=False, text=str(problem))
    if done.returncode:
        text = f"{program} cannot run the head: {_last_line(done.stderr)}"
        return Finding(field="scheduler.python", ok=False, text=text)
    return Finding(field="scheduler.python", ok=True, text=f"{program} can run the head")


def _launcher(site: Site, path: str) -> Finding:
    first, *rest = site.launcher.command
    program = rest[0] if first == "env" and rest else first
    beside = Path(site.scheduler.python or sys.executable).parent
    found = shutil.which(program, path=path if first == "env" else f"{beside}{os.pathsep}{path}")
    if found is None:
        text = f"{program} is neither beside {beside / 'python'} nor on PATH"
        return Finding(field="launcher.command", ok=False, text=text)
    return Finding(field="launcher.command", ok=True, text=f"{program} is {found}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]
