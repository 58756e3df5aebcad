"""What a task demands of the sites that may run it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hpcpanda.domain.errors import InvalidValue
from hpcpanda.domain.validation import require_name

MAX_NAMES = 100
"""Most names in one list of demands or tags."""
DATA_TAG = "data:"
"""Begins the tags by which a site says which data policies it keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """Hard demands: a site that breaks one of them is never given any of the task."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid", "use_attribute_docstrings": True}

    architectures: tuple[str, ...] = ()
    """Processor architectures on which it runs, such as ``x86_64``; any of them will do. Any at all when not said."""
    tags: tuple[str, ...] = ()
    """Tags that a site must have, all of them: software, licences, features."""
    data_policy: str | None = None
    """Only sites with the tag ``data:<policy>`` may have its data."""
    sites: tuple[str, ...] = ()
    """Sites that may run it; all when not said."""
    not_sites: tuple[str, ...] = ()
    """Sites that may not."""

    def __post_init__(self) -> None:
        for field in ("architectures", "sites", "not_sites"):
            values = getattr(self, field)
            _require_few(f"requirements.{field}", values)
            for value in values:
                require_name(f"requirements.{field}", value)
        require_tags("requirements.tags", self.tags)
        if self.data_policy is not None:
            require_name("requirements.data_policy", self.data_policy)
        if both := set(self.sites) & set(self.not_sites):
            raise InvalidValue("requirements.not_sites", f"{min(both)!r} is in 'sites' too")

    @property
    def all_tags(self) -> tuple[str, ...]:
        """The tags a site must have, that of the data policy among them."""
        return self.tags if self.data_policy is None else (*self.tags, DATA_TAG + self.data_policy)


def require_tags(field: str, tags: Sequence[str]) -> None:
    """Accept at most 100 different tags: names, with ``:`` between kind and name if wanted (``software:geant4``)."""
    _require_few(field, tags)
    for tag in tags:
        if len(tag) > MAX_NAMES + 28:
            raise InvalidValue(field, f"{tag[:40]!r}... is longer than 128 characters")
        for part in tag.split(":"):
            require_name(field, part)


def _require_few(field: str, values: Sequence[str]) -> None:
    if len(values) > MAX_NAMES:
        raise InvalidValue(field, f"names more than {MAX_NAMES}")
    if len(set(values)) < len(values):
        raise InvalidValue(field, "names one twice")
