"""Files on this machine's file system as files of a dataset, and lists of files prepared elsewhere."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import islice
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hpcpanda.dispatcher.wording import field_errors
from hpcpanda.domain.dataset import MAX_CLUSTERS, MAX_FILES, DatasetFile, Replica
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.inputs import InputFormat

MAX_LETTERS = 16 * 2**20
"""Most bytes of a list that are sent in one call; the dispatcher takes 32 MiB unless it was set to take less."""

_FILE: TypeAdapter[DatasetFile] = TypeAdapter(DatasetFile)


class Checksum(StrEnum):
    """Checksums that can be made of a file."""

    NONE = "none"
    ADLER32 = "adler32"
    SHA256 = "sha256"


def describe_file(
    path: Path,
    *,
    site: str,
    kind: InputFormat,
    container: str | None,
    checksum: Checksum,
) -> DatasetFile:
    """Count a file's entries and say what it is. Reads all of it when a checksum is wanted.

    Raises:
        InvalidValue: it cannot be read as this format, or its name cannot be one in a dataset.
    """
    from hpcpanda.payload.inputs import describe

    found = describe(str(path), kind, container)
    step = math.ceil(len(found.clusters) / MAX_CLUSTERS) or 1
    return DatasetFile(
        name=path.name,
        events=found.events,
        size=path.stat().st_size,
        checksum=_checksum(path, checksum),
        clusters=found.clusters[step - 1 :: step],
        replicas=(Replica(site=site, path=found.path),),
    )


def _checksum(path: Path, kind: Checksum) -> str | None:
    if kind is Checksum.NONE:
        return None
    sha, adler = hashlib.sha256(), 1
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            if kind is Checksum.SHA256:
                sha.update(data)
            else:
                adler = zlib.adler32(data, adler)
    return f"sha256:{sha.hexdigest()}" if kind is Checksum.SHA256 else f"adler32:{adler:08x}"


def listed_files(path: Path) -> Iterator[list[DatasetFile]]:
    """The files in a list, one JSON document a line, in portions of one call each.

    Raises:
        InvalidValue: the list cannot be read, or a line of it is no file; names the line.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            yield from _portions(path, lines)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(str(path), f"cannot be read: {error}") from error


def _portions(path: Path, lines: Iterable[str]) -> Iterator[list[DatasetFile]]:
    portion: list[DatasetFile] = []
    letters = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if portion and (len(portion) == MAX_FILES or letters + len(line) > MAX_LETTERS):
            yield portion
            portion, letters = [], 0
        portion.append(_parsed(path, number, line))
        letters += len(line)
    if portion:
        yield portion


def _parsed(path: Path, number: int, line: str) -> DatasetFile:
    try:
        return _FILE.validate_json(line)
    except ValidationError as error:
        problems = field_errors(each for each in error.errors(include_url=False))
        raise InvalidValue(f"{path}, line {number}", "; ".join(problems)) from error


def require_names(paths: Iterable[Path]) -> None:
    """Accept files of different names: by its name a file is known in a dataset, wherever its copies are.

    Raises:
        InvalidValue: two different files have one name.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.name, path)
        if other.absolute() != path.absolute():
            raise InvalidValue(
                "FILES",
                f"{other} and {path} have the same name, so the dataset would take them for one file; "
                "give them names of their own, or list them with --list, where 'name' is free",
            )


def portions(files: Iterable[DatasetFile]) -> Iterator[list[DatasetFile]]:
    """Files in portions of one call each."""
    it = iter(files)
    while portion := list(islice(it, 100)):
        yield portion
