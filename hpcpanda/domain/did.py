"""Names of datasets: ``scope:name``, as Rucio names data.

The rules are those of Rucio's generic schema (``lib/rucio/common/schema/generic.py``), each a little narrower: a dataset
can be registered there under the same name, and its name can stand in an address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hpcpanda.domain.errors import InvalidValue

SCOPE_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,24}$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{1,249}$"
_SCOPE = re.compile(SCOPE_PATTERN[1:-1])
_NAME = re.compile(NAME_PATTERN[1:-1])


def require_scope(field: str, value: str) -> None:
    """Accept 1-25 letters, digits, ``.``, ``_`` and ``-``, the first no ``.`` or ``-``."""
    if not _SCOPE.fullmatch(value):
        raise InvalidValue(
            field,
            f"{value[:40]!r} is not a scope; use 1-25 letters, digits, '.', '_' or '-', not beginning with '.' or '-'",
        )


def require_did(field: str, value: str) -> None:
    """Accept 2-250 letters, digits, ``.``, ``_`` and ``-``, beginning with a letter or digit."""
    if not _NAME.fullmatch(value):
        raise InvalidValue(
            field,
            f"{value[:260]!r} is not a name in a catalogue; use 2-250 letters, digits, '.', '_' or '-', beginning with a "
            "letter or digit",
        )


@dataclass(frozen=True, slots=True, order=True)
class Did:
    """Names a dataset: ``scope:name``, as Rucio names data."""

    scope: str
    name: str

    def __post_init__(self) -> None:
        require_scope("dataset.scope", self.scope)
        require_did("dataset.name", self.name)

    def __str__(self) -> str:
        return f"{self.scope}:{self.name}"

    @classmethod
    def parse(cls, text: str, field: str = "dataset") -> Did:
        """Take ``scope:name`` apart.

        Raises:
            InvalidValue: it is not of that form.
        """
        scope, colon, name = text.partition(":")
        if not colon:
            raise InvalidValue(field, f"{text[:280]!r} is not of the form 'scope:name'")
        try:
            return cls(scope, name)
        except InvalidValue as error:
            raise InvalidValue(field, error.problem) from None
