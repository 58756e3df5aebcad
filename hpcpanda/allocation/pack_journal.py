"""The journal that a rank of a pack writes for a task."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcpanda.allocation.pack_run import PackRun
from hpcpanda.allocation.plan import MpiJobPack
from hpcpanda.allocation.spool import Spool, journal_name
from hpcpanda.events.journal import JournalHeader
from hpcpanda.events.recorder import Recorder


def new_recorder(run: PackRun, task_id: int, *, rank: int, cores: int) -> Recorder:
    """A recorder over a new journal of a task.

    Args:
        run: the start of the pack.
        task_id: whose journal it is.
        rank: who writes it.
        cores: cores that it speaks of.

    Raises:
        OSError: the spool folder cannot be written.
    """
    name = journal_name(run.allocation_id, run.pack.pack_id, run.incarnation, rank)
    header = JournalHeader(
        task_id=task_id,
        allocation_id=run.allocation_id,
        pack_id=run.pack.pack_id,
        incarnation=run.incarnation,
        rank=rank,
        host=_node_name(run, rank),
        cores=cores,
        started=time.time(),
    )
    return Recorder(
        Spool(Path(run.spool)).events(task_id) / name,
        header,
        roll_bytes=run.site.limits.open_segment_mb << 20,
        sync_s=run.site.allocation.sync_s,
        on_durable=lambda _: None,
    )


def _node_name(run: PackRun, rank: int) -> str:
    """What tells this node from the others of the allocation, also where several nodes are one machine."""
    if isinstance(run.pack, MpiJobPack):
        return f"{run.pack.pack_id}, an MPI job on {run.pack.nodes} nodes"
    known = os.environ.get("SLURMD_NODENAME")
    if known or not run.site.nodes.oversubscribe:
        return known or socket.gethostname()
    return f"{socket.gethostname()}-{rank}"


@contextmanager
def open_journal(run: PackRun, task_id: int, *, rank: int, cores: int) -> Iterator[Recorder]:
    """A new journal of a task, ended in order and durable at the end; see :func:`new_recorder`."""
    recorder = new_recorder(run, task_id, rank=rank, cores=cores)
    try:
        yield recorder
    finally:
        recorder.close()
