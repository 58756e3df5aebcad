"""Is a node what the site file says, before the first job runs on it?"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Final

from hpcpanda.domain.site import Site

MIN_FREE_MB: Final = 256
"""Room that the folder for work folders must have, MiB."""
_MIB: Final = 1 << 20


def check_node(site: Site, scratch: Path) -> list[str]:
    """What keeps jobs from running on this node as the site file promises; empty when nothing does.

    Args:
        site: the site; pretended nodes, which share a machine, are not held to their cores.
        scratch: folder for the work folders of jobs.
    """
    complaints = _scratch(scratch)
    processors = os.sched_getaffinity(0)
    if len(processors) < site.nodes.cores and not site.nodes.oversubscribe:
        complaints.append(
            f"the batch system gives {len(processors)} processors, nodes.cores says {site.nodes.cores}; "
            "scheduler.slots_per_node may have to ask for more"
        )
    memory_mb = memory_bytes() // _MIB
    if memory_mb < site.nodes.memory_mb:
        complaints.append(f"there are {memory_mb} MiB of memory, nodes.memory_mb says {site.nodes.memory_mb}")
    return complaints


def _scratch(scratch: Path) -> list[str]:
    try:
        with tempfile.TemporaryFile(dir=scratch) as file:
            file.write(bytes(4096))
            file.flush()
        found = os.statvfs(scratch)
    except OSError as error:
        return [f"the work folder {scratch} cannot be used: {error.strerror}; nodes.scratch names its place"]
    free_mb = found.f_bavail * found.f_frsize // _MIB
    if free_mb < MIN_FREE_MB:
        return [f"the work folder {scratch} has {free_mb} MiB left; {MIN_FREE_MB} are needed"]
    return []


def memory_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Memory that the processes of this node may use: the machine's, or what the control group allows (cgroups(7))."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE)
    limits = [int(found[1]) << 10] if found is not None else []
    for line in (proc / "self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if not controllers:
            root, file = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, file = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / place.lstrip("/")
        places = [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
        limits += [int(text) for folder in places if (text := _text(folder / file)).isdigit()]
    return min(limits)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
