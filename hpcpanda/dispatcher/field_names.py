"""The fields that a file may have, for whoever has written another."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from typing import get_args, get_type_hints

_ALIKE = 0.6
"""Part of two names that is the same in one and its misspelling, as :mod:`difflib` measures it."""


def field_names(model: type, within: str = "") -> Iterator[str]:
    """Dotted names of all fields of a data class, and of the data classes in them."""
    hints = get_type_hints(model)
    for each in dataclasses.fields(model):
        yield within + each.name
        for inner in _models(hints[each.name]):
            yield from field_names(inner, f"{within}{each.name}.")


def _models(hint: object) -> Iterator[type]:
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
        return
    for part in get_args(hint):
        yield from _models(part)


def meant(field: str, model: type) -> str | None:
    """The field of a model that somebody may have meant by a dotted name that it has not: one that is spelt alike, or one of
    that name in another table."""
    table, _, name = field.rpartition(".")
    known: dict[str, list[str]] = {}
    for full in field_names(model):
        known.setdefault(full.rpartition(".")[2], []).append(full)
    for found in difflib.get_close_matches(name, known, n=1, cutoff=_ALIKE):
        return min(known[found], key=lambda full: (full.rpartition(".")[0] != table, len(full)))
    return None
