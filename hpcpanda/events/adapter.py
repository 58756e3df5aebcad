"""Reading and writing of data classes as JSON, prepared when first used: a program of a pack that starts on a thousand
nodes must not spend its first second on messages that it never sees."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


class Adapter(Generic[T]):
    """A :class:`pydantic.TypeAdapter` that is built at its first use."""

    def __init__(self, type_: Any) -> None:  # noqa: ANN401 - a union is not a type
        self._type = type_

    @cached_property
    def _built(self) -> TypeAdapter[T]:
        return TypeAdapter(self._type)

    def validate_json(self, text: str | bytes) -> T:
        """The value that JSON stands for. Raises pydantic's ValidationError when it is none of the type."""
        return self._built.validate_json(text)

    def dump_json(self, value: T) -> bytes:
        """The value as JSON."""
        return self._built.dump_json(value)
