"""The program of a merge pack: one rank that merges a task's accepted segments. Started by the head like a work pack."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hpcpanda.allocation.forkserver import die_with_parent
from hpcpanda.allocation.pack_line import HeadLine
from hpcpanda.allocation.pack_run import PACK_RUN
from hpcpanda.allocation.plan import MergePack, PackStatus
from hpcpanda.allocation.spool import read_message
from hpcpanda.domain.errors import HpcPandaError
from hpcpanda.domain.jobs import JobPayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.merge import JobOutputs, Source, merge


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

    try:
        merged = merge(
            sources=[Source(journal=Path(a.journal), epoch=a.epoch, events=a.events) for a in pack.accepted],
            format=pack.spec.output.format,
            output=Path(pack.output),
            provenance=pack.provenance,
            failed=pack.failed,
            progress=progress,
            jobs=_job_outputs(pack.spec),
        )
    except (HpcPandaError, OSError) as problem:
        tell(PackStatus(pack_id=pack.pack_id, state="ended", error=str(problem)))
        return
    tell(
        PackStatus(
            pack_id=pack.pack_id,
            state="ended",
            progress=1.0,
            result={
                "path": str(merged.path),
                "manifest": str(merged.manifest),
                "digest": merged.digest,
                "size": merged.size,
            },
        )
    )


def _job_outputs(spec: TaskSpec) -> JobOutputs | None:
    """What each job leaves; None for a task of events."""
    if spec.jobs is None or not isinstance(spec.payload, JobPayload):
        return None
    return JobOutputs(jobs=spec.jobs, outputs=spec.payload.outputs)


if __name__ == "__main__":
    main()
