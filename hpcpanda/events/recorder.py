"""Write a node's segment and journal, with group sync.

The agent's loop appends range outputs to the segment file at once; a thread makes them durable
together: sync the segment, write the journal frames, sync the journal, write the mark. Until the
mark is there, nothing is *done*.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.events.columns import Buffer, Schema
from hpcpanda.events.journal import (
    Entries,
    FailedInEpoch,
    FrameKind,
    JournalHeader,
    done_frame,
    failed_frame,
    frame,
    header_frame,
    schema_frame,
    segment_path,
)

Recorded = Entries | FailedInEpoch
"""What becomes durable: finished ranges, or events set aside."""


def write_all(fd: int, buffers: Sequence[Buffer]) -> int:
    """Write all buffers to ``fd``; gives the number of bytes. Raises OSError when the disk refuses."""
    views = [memoryview(b).cast("B") for b in buffers if len(b)]
    total = sum(len(v) for v in views)
    while views:
        written = os.writev(fd, views[:1000])
        while views and written >= len(views[0]):
            written -= len(views.pop(0))
        if written:
            views[0] = views[0][written:]
    return total


class Recorder:
    """One agent's segment files and journal.

    ``record`` and ``set_aside`` are called by one thread. ``on_durable`` is called from the sync
    thread with what has just become done. An error of the disk ends the recorder: it is kept in
    ``error``, raised by the next call, and nothing after the last mark counts.
    """

    def __init__(
        self,
        journal: Path,
        header: JournalHeader,
        *,
        roll_bytes: int,
        sync_s: float,
        on_durable: Callable[[list[Recorded]], None],
    ) -> None:
        self._journal_path = journal
        self._roll_bytes = roll_bytes
        self._sync_s = sync_s
        self._on_durable = on_durable
        self._schema: Schema | None = None
        self._segment = 0
        self._segment_fd = -1
        self._offset = 0
        self._dirty: list[int] = []
        self._pending: list[Recorded] = []
        self._prologue = b""
        self._new_file = False
        self.error: OSError | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._journal_fd = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        write_all(self._journal_fd, [header_frame(header)])
        _sync_folder(journal.parent)
        self._thread = threading.Thread(target=self._sync_loop, name="journal-sync", daemon=True)
        self._thread.start()

    @property
    def schema(self) -> Schema | None:
        """Columns of this journal's entries; None before the first."""
        return self._schema

    def fix_schema(self, schema: Schema) -> None:
        """Set the columns, once.

        Raises:
            InvalidValue: they differ from the columns set before.
        """
        if self._schema is None:
            self._schema = schema
            self._prologue = schema_frame(schema)
        elif difference := self._schema.difference(schema):
            raise InvalidValue("result", f"{difference}; all ranges of a task must have the same columns")

    def record(self, entries: Entries, data: Sequence[Buffer]) -> None:
        """Append the output of finished ranges.

        Args:
            entries: with ``offset`` relative to the begin of ``data``; changed in place to offsets in the segment.
            data: the bytes of all the ranges.
        """
        self._raise_error()
        size = sum(len(b) for b in data)
        if self._segment_fd < 0 or (self._offset and self._offset + size > self._roll_bytes):
            self._roll()
        try:
            write_all(self._segment_fd, data)
        except OSError as problem:
            self.error = problem
            raise
        entries["offset"] += np.uint64(self._offset)
        entries["segment"] = self._segment
        self._offset += size
        self._enqueue(entries)

    def set_aside(self, failed: FailedInEpoch) -> None:
        """Record events as failed for good."""
        self._raise_error()
        self._enqueue(failed)

    def close(self) -> None:
        """Make everything durable, end the journal in order, close the files. Raises OSError when that fails."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        for fd in (*self._dirty, self._segment_fd, self._journal_fd):
            if fd >= 0:
                os.close(fd)
        self._raise_error()

    def _raise_error(self) -> None:
        if self.error is not None:
            raise self.error

    def _enqueue(self, recorded: Recorded) -> None:
        with self._changed:
            self._pending.append(recorded)
            if len(self._pending) == 1:
                self._changed.notify()

    def _roll(self) -> None:
        """Begin the next segment file; the full one is synced with the next group."""
        with self._changed:
            if self._segment_fd >= 0:
                self._dirty.append(self._segment_fd)
                self._segment += 1
            path = segment_path(self._journal_path, self._segment)
            self._segment_fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
            self._offset = 0
            self._new_file = True

    def _sync_loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._pending) or self._closing)
                if not self._closing:
                    self._changed.wait_for(lambda: self._closing, timeout=self._sync_s)
                group, self._pending = self._pending, []
                full, self._dirty = self._dirty, []
                closing, current = self._closing, self._segment_fd
                prologue, self._prologue = self._prologue, b""
                new_file, self._new_file = self._new_file, False
            try:
                if new_file:
                    _sync_folder(self._journal_path.parent)
                self._sync_group(group, full, current, prologue)
                if closing and self.error is not None:
                    return
                if closing:
                    write_all(self._journal_fd, [frame(FrameKind.CLOSE)])
                    os.fsync(self._journal_fd)
                    return
            except OSError as problem:
                self.error = problem
                return

    def _sync_group(self, group: list[Recorded], full: list[int], current: int, prologue: bytes) -> None:
        for fd in full:
            os.fsync(fd)
            os.close(fd)
        if not group:
            return
        if current >= 0:
            os.fdatasync(current)
        done = [g for g in group if not isinstance(g, FailedInEpoch)]
        frames = [prologue] + [failed_frame(g) for g in group if isinstance(g, FailedInEpoch)]
        if done:
            frames.append(done_frame(np.concatenate(done)))
        write_all(self._journal_fd, frames)
        os.fdatasync(self._journal_fd)
        write_all(self._journal_fd, [frame(FrameKind.MARK)])
        self._on_durable(group)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
