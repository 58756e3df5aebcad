"""The lines of a trace file, plain or compressed, in bounded memory and time whatever the file is."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

from hpcpanda.domain.errors import InvalidValue, TooLarge

MAX_BYTES: Final = 8 * 2**30
"""Unpacked bytes that are read at most: some tens of millions of jobs."""
MAX_LINE: Final = 2**20
"""Characters of one line; a node list of 100 000 processors fits."""
MAX_RATIO: Final = 300
"""A file that unpacks to more than this many times its size is no text of jobs: those shrink 5 to 50 times."""
_HARMLESS: Final = 64 * 2**20
"""Unpacked bytes below which the ratio does not matter."""
_BLOCK: Final = 2**20

OVERLONG: Final = "\0"
"""Given in the place of a line that is too long; no format takes it for a job."""

_OTHER_PACKERS: Final = {b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip", b"7z\xbc\xaf": "7z"}
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")


class _Bytes(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number, from 1, and text of each line, without its end. Bytes are taken as Latin-1: what counts in a trace is ASCII.

    Compressed files (gzip, bzip2, xz) are known by their first bytes, not by their names.

    Raises:
        InvalidValue: the file cannot be read, is damaged, or is packed or written in a way that is not known here.
        TooLarge: it unpacks to more than is reasonable.
    """
    try:
        packed = path.stat().st_size
        with closing(_open(path)) as file:
            yield from _split(path, file, packed)
    except EOFError as error:
        raise InvalidValue(str(path), "is damaged: it ends early; get it again") from error
    except (zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise InvalidValue(str(path), f"is damaged ({error}); get it again") from error
    except OSError as error:
        problem = f"cannot be read: {error.strerror}" if error.strerror else f"is damaged ({error})"
        raise InvalidValue(str(path), problem) from error


def _open(path: Path) -> _Bytes:
    if not path.is_file() and path.exists():
        raise InvalidValue(str(path), "is not a file")
    with path.open("rb") as file:
        magic = file.read(6)
    for mark, packer in _OTHER_PACKERS.items():
        if magic.startswith(mark):
            raise InvalidValue(str(path), f"is packed with {packer}; unpack it, or pack it with gzip or xz")
    if magic.startswith(_WIDE):
        raise InvalidValue(str(path), "is UTF-16; write it as UTF-8")
    if magic.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if magic.startswith(b"BZh"):
        return bz2.open(path)
    if magic == b"\xfd7zXZ\0":
        return lzma.open(path)
    return path.open("rb")


def _split(path: Path, file: _Bytes, packed: int) -> Iterator[tuple[int, str]]:
    number, unpacked = 0, 0
    rest, skipping = "", False
    while block := file.read(_BLOCK):
        if not unpacked:
            block = block.removeprefix(b"\xef\xbb\xbf")
        unpacked += len(block)
        _require_reasonable(path, packed, unpacked)
        *whole, last = block.decode("latin-1").split("\n")
        if whole:
            whole[0] = OVERLONG if skipping else rest + whole[0]
            rest, skipping = "", False
            for line in whole:
                number += 1
                yield number, (line if len(line) <= MAX_LINE else OVERLONG)
        if not skipping:
            rest += last
            skipping = len(rest) > MAX_LINE
        if skipping:
            rest = OVERLONG
    if rest:
        yield number + 1, rest


def _require_reasonable(path: Path, packed: int, unpacked: int) -> None:
    if unpacked > MAX_BYTES:
        raise TooLarge(f"{path}: has more than {MAX_BYTES >> 30} GiB of text; cut it into parts")
    if unpacked > max(_HARMLESS, MAX_RATIO * packed):
        raise TooLarge(
            f"{path}: {packed} bytes unpack to more than {unpacked} bytes, {MAX_RATIO} times as much: not a trace of jobs"
        )
