"""What a task's merged output is to be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from hpcpanda.domain.did import Did
from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import MAX_EVENTS, require_between, require_name

_STRICT: dict[str, object] = {"extra": "forbid", "use_attribute_docstrings": True}


MAX_ROLLED_NAME = 100
"""Longest name of an output that is written as several files."""


class OutputFormat(StrEnum):
    """What the merge writes."""

    HDF5 = "hdf5"
    """Arrays of all events, one dataset a column."""
    CONCAT = "concat"
    """The ranges' bytes one after the other."""
    ZIP = "zip"
    """One archive member a range, in event order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The task's merged file."""

    __pydantic_config__: ClassVar = _STRICT

    file: str
    """File name of the merged output; no folders."""
    format: OutputFormat = OutputFormat.HDF5
    max_events: int | None = None
    """Several files of at most so many events, or jobs, instead of one: each is written as soon as a site holds so many,
    what is left at the end. Only a single range that is longer makes a longer file."""

    dataset: str | None = None
    """``scope:name`` of the dataset to which the merged files are added; it is made when there is none, and closed when the
    task has ended well."""

    def __post_init__(self) -> None:
        require_name("output.file", self.file)
        if self.dataset is not None:
            Did.parse(self.dataset, "output.dataset")
        if self.max_events is None:
            return
        require_between("output.max_events", self.max_events, 1, MAX_EVENTS)
        if len(self.file) > MAX_ROLLED_NAME:
            raise InvalidValue(
                "output.file", f"has more than {MAX_ROLLED_NAME} characters, and numbers are put into it"
            )

    def of_try(self, number: int) -> Output:
        """The same for the second and later tries of a task: what they write replaces nothing of an earlier one."""
        stem, suffix = _stem_and_suffix(self.file)
        mark = f".try{number}{suffix[:20]}"
        return replace(self, file=stem[: MAX_ROLLED_NAME - len(mark)] + mark)

    def file_from(self, first: int) -> str:
        """Name of the file whose first event is this one: no two files of a task have the same, wherever they are
        written."""
        if self.max_events is None:
            return self.file
        stem, suffix = _stem_and_suffix(self.file)
        return f"{stem}.{first:012d}{suffix}"


def _stem_and_suffix(name: str) -> tuple[str, str]:
    """``("a", ".h5")`` of ``a.h5``; the suffix is empty when there is none."""
    stem, _, suffix = name.rpartition(".")
    return (stem, f".{suffix}") if stem and suffix else (name, "")
