"""The program of a merge pack: one rank that merges a task's accepted segments. Started by the head like a work pack."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Final

from hpcpanda.allocation.forkserver import die_with_parent
from hpcpanda.allocation.pack_line import HeadLine
from hpcpanda.allocation.pack_run import PACK_RUN
from hpcpanda.allocation.plan import MergedFile, MergePack, PackStatus
from hpcpanda.allocation.spool import read_message
from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.merge import JobOutputs, Source, merge_files

_MODESTY: Final = 15
"""Added to the niceness of a merge that has no node of its own and that nobody waits for: its task goes on."""


def main() -> None:
    """Entry point: merge, and report the result on the original stdout."""
    die_with_parent()
    tell = HeadLine().tell
    run = read_message(Path(sys.argv[1]), PACK_RUN)
    pack = run.pack
    assert isinstance(pack, MergePack)
    said = 0.0

    def progress(share: float) -> None:
        nonlocal said
        if time.monotonic() - said >= 1.0:
            said = time.monotonic()
            tell(PackStatus(pack_id=pack.pack_id, state="running", progress=share))

    if not (pack.nodes or pack.rest):
        os.nice(_MODESTY)
    try:
        made = merge_files(
            sources=[Source(journal=Path(a.journal), epoch=a.epoch, events=a.events) for a in pack.accepted],
            output=pack.spec.output,
            folder=Path(pack.output).parent,
            rest=pack.rest,
            provenance=pack.provenance,
            failed=pack.failed,
            progress=progress,
            jobs=_job_outputs(pack.spec),
            threads=None if pack.nodes else 1,
        )
    except (HpcPandaError, OSError) as problem:
        tell(PackStatus(pack_id=pack.pack_id, state="ended", error=str(problem)))
        return
    files = tuple(
        MergedFile(path=str(m.path), manifest=str(m.manifest), digest=m.digest, size=m.size, events=m.events)
        for m in made
    )
    tell(PackStatus(pack_id=pack.pack_id, state="ended", progress=1.0, files=files))


def _job_outputs(spec: TaskSpec) -> JobOutputs | None:
    """What each job leaves; None for a task of events."""
    if spec.jobs is None or not isinstance(spec.payload, JobPayload):
        return None
    return JobOutputs(jobs=spec.jobs, outputs=spec.payload.outputs)


if __name__ == "__main__":
    main()
