"""A worker's byte stream is cut into the same frames however it arrives, and garbage is refused."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcpanda.allocation.wire import FRAME, MAX_FRAME, FrameReader, WorkerFrame
from hpcpanda.domain.errors import CorruptData

Plain = tuple[int, bytes, bytes]

frames = st.lists(
    st.tuples(st.sampled_from(list(WorkerFrame)), st.binary(max_size=200), st.binary(max_size=2000)),
    max_size=100,
)


class Line:
    """Two ends of a worker's connection."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(0)
        self.reader = FrameReader(self.ours)
        self.found: list[Plain] = []

    def feed(self, data: bytes) -> None:
        """Let bytes arrive, and read what can be read."""
        self.theirs.sendall(data)
        self.read()

    def wait(self) -> None:
        """Until something has arrived, or the end: on a busy kernel that may take a moment."""
        select.select([self.ours], [], [], 30)

    def read(self) -> bool:
        """Wait for something, and read until there is nothing; False when the worker has hung up."""
        self.wait()
        while True:
            got = self.reader.read()
            if got is None:
                return False
            self.found += [(f.kind, bytes(f.entries), bytes(f.data)) for f in got]
            if len(got) < 64:
                return True

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def line() -> Iterator[Line]:
    """A connection."""
    made = Line()
    yield made
    made.close()


def packed(frame: Plain) -> bytes:
    """A frame as a worker writes it."""
    kind, entries, data = frame
    return FRAME.pack(len(entries), len(data), kind) + entries + data


@given(sent=frames, cuts=st.lists(st.integers(1, 3000), max_size=60))
@settings(deadline=None)
def test_frames_arrive_whole_however_they_are_cut(sent: list[Plain], cuts: list[int]) -> None:
    """Any cutting of the stream gives the same frames in the same order."""
    line = Line()
    try:
        stream = b"".join(map(packed, sent))
        for cut in (*cuts, None):
            piece, stream = (stream[:cut], stream[cut:]) if cut else (stream, b"")
            while piece:  # in pieces that a socket takes at once
                line.feed(piece[:50_000])
                piece = piece[50_000:]
        assert line.found == [(k, e, d) for k, e, d in sent]
        line.theirs.close()
        assert not line.read()
    finally:
        line.close()


@given(garbage=st.binary(max_size=5000))
@settings(deadline=None)
def test_garbage_is_refused_or_waited_for_but_never_read_for_ever(garbage: bytes) -> None:
    """Random bytes are frames by chance, refused, or an unfinished frame; the end is always seen."""
    line = Line()
    try:
        line.theirs.sendall(garbage)
        line.theirs.close()
        for _ in range(len(garbage) + 2):
            try:
                line.wait()
                if line.reader.read() is None:
                    break
            except CorruptData:
                continue
        else:
            raise AssertionError("the reader does not see the end")
    finally:
        line.close()


@pytest.mark.parametrize("kind", [0, 7, 255])
def test_an_unknown_kind_is_refused(line: Line, kind: int) -> None:
    """A frame of a kind that does not exist is corrupt."""
    with pytest.raises(CorruptData, match="unknown kind"):
        line.feed(FRAME.pack(1, 0, kind) + b"x")


def test_a_frame_too_large_is_refused_before_memory_is_taken(line: Line) -> None:
    """The announced size is checked before anything is read."""
    with pytest.raises(CorruptData, match="announced"):
        line.feed(FRAME.pack(MAX_FRAME, 1, WorkerFrame.RESULTS))


def test_a_frame_cut_by_death_is_no_frame(line: Line) -> None:
    """What a dying worker wrote half is not delivered."""
    line.feed(packed((WorkerFrame.READY, b"", b"")) + packed((WorkerFrame.RESULTS, b"ab", b"cd"))[:-1])
    assert line.found == [(WorkerFrame.READY, b"", b"")]
    line.theirs.close()
    assert not line.read()
