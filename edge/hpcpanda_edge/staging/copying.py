"""Copy a file's bytes, durably and tested. Calls block and are made in threads."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from hpcpanda.domain.errors import CorruptData, InvalidValue, Unavailable
from hpcpanda.events.recorder import write_all

Stopped = Callable[[], bool]
"""Whether a copy is to be given up."""

_IN_KERNEL: Final = 64 * 2**20
_PIECE: Final = 4 * 2**20
_NOT_IN_KERNEL: Final = {
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EOPNOTSUPP,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
}
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class GivenUp(Exception):
    """The copy was stopped; nothing is wrong."""


class NoRoom(Unavailable):
    """The file system of the target has too little room; trying again later is right."""


def is_full(problem: object) -> bool:
    """Whether an error says that a disk, or a quota, is full: a reason to wait, not a failure."""
    return isinstance(problem, NoRoom) or (isinstance(problem, OSError) and problem.errno in _FULL)


@dataclass(frozen=True, slots=True)
class Identity:
    """What changes when a file is written."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, facts: os.stat_result) -> Identity:
        """Of a file."""
        return cls(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)


class _Adler32:
    """Adler-32 with the methods of :mod:`hashlib`, as Rucio keeps it: 8 hexadecimal digits."""

    def __init__(self) -> None:
        self._value = 1

    def update(self, data: bytes) -> None:
        self._value = zlib.adler32(data, self._value)

    def hexdigest(self) -> str:
        return f"{self._value:08x}"


class Digest(Protocol):
    """A checksum under way."""

    def update(self, data: bytes, /) -> None:
        """Take in further bytes."""

    def hexdigest(self) -> str:
        """The checksum so far."""


def new_digest(algorithm: str) -> Digest:
    """Of the kinds that a task may name: ``adler32`` or ``sha256``."""
    return _Adler32() if algorithm == "adler32" else hashlib.sha256()


def identity(path: Path) -> Identity:
    """Of a regular file, symbolic links followed.

    Raises:
        InvalidValue: it is a folder, a pipe, a device or a socket.
        OSError: it cannot be looked at.
    """
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):
        raise InvalidValue(str(path), f"is {_kind(facts.st_mode)}; only plain files are staged")
    return Identity.of(facts)


def copy_file(
    original: Path, copy: Path, *, mode: int | None, stopped: Stopped, digest: Digest | None = None
) -> Identity:
    """Copy a plain file to a new name and bring it to the disk.

    Args:
        original: the file.
        copy: its copy, which must not be there.
        mode: permissions of the copy; those of the original when None.
        stopped: asked between pieces.
        digest: takes in every byte on the way; without one the kernel copies, or shares blocks, where it can.

    Returns:
        What the original was.

    Raises:
        InvalidValue: the original is not a plain file.
        Unavailable: the original was changed meanwhile.
        GivenUp: it was stopped.
        OSError: anything else; names both. What was written of the copy is left.
    """
    identity(original)  # opening a device may do things
    source = os.open(original, os.O_RDONLY | os.O_NONBLOCK)
    try:
        facts = os.fstat(source)
        before = Identity.of(facts)
        bits = stat.S_IMODE(facts.st_mode) & 0o666 if mode is None else mode
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, bits)
        try:
            whole = _copy_bytes(source, target, before.size, stopped, digest)
            os.fsync(target)
        finally:
            os.close(target)
        if not whole or Identity.of(os.fstat(source)) != before:
            raise Unavailable(f"{original} was changed while it was copied")
    except OSError as problem:
        text = f"{original} cannot be copied to {copy.parent}: {problem.strerror}"
        raise OSError(problem.errno, text) from problem
    finally:
        os.close(source)
    return before


def _copy_bytes(source: int, target: int, size: int, stopped: Stopped, digest: Digest | None) -> bool:
    """Copy ``size`` bytes; False when there are not so many."""
    done = 0
    in_kernel = digest is None
    while done < size:
        if stopped():
            raise GivenUp
        if in_kernel:
            try:
                count = os.copy_file_range(source, target, min(_IN_KERNEL, size - done), done, done)
            except OSError as problem:
                if problem.errno not in _NOT_IN_KERNEL:
                    raise
                count = 0
            if not count:  # some file systems do not say that they cannot
                in_kernel = False
                os.lseek(target, done, os.SEEK_SET)
        else:
            data = os.pread(source, min(_PIECE, size - done), done)
            if not data:
                return False
            if digest is not None:
                digest.update(data)
            count = write_all(target, [data])
        done += count
    return True


def read_digest(path: Path, algorithm: str, stopped: Stopped) -> str:
    """Checksum of a file as ``algorithm:hexadecimal``, read from the disk where the system allows that.

    Raises:
        GivenUp: it was stopped.
        OSError: it cannot be read.
    """
    digest = new_digest(algorithm)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # or only the memory would be tested
        while data := os.read(fd, _PIECE):
            if stopped():
                raise GivenUp
            digest.update(data)
    finally:
        os.close(fd)
    return f"{algorithm}:{digest.hexdigest()}"


def require_checksum(path: Path, expected: str, original: Path, stopped: Stopped) -> None:
    """Read a copy again and compare.

    Raises:
        CorruptData: it is not what it should be.
        GivenUp: it was stopped.
        OSError: it cannot be read.
    """
    found = read_digest(path, expected.partition(":")[0], stopped)
    if found != expected.lower():
        raise CorruptData(f"the copy of {original} has the checksum {found}, not {expected}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "not a plain file")
