"""How domain values stand in columns."""

from __future__ import annotations

import json
from functools import lru_cache

from pydantic import TypeAdapter

from hpcpanda.domain.errors import CorruptData, HpcPandaError
from hpcpanda.domain.intervals import EMPTY, IntervalSet
from hpcpanda.domain.room import Room
from hpcpanda.domain.task import TaskSpec
from hpcpanda.domain.why import Why

MAX_ID = 2**63 - 1
"""Largest number a column holds; greater ones name nothing."""

SMALL_SPEC = 256 * 1024
"""Characters of a specification that is remembered without a second thought."""

_SPEC: TypeAdapter[TaskSpec] = TypeAdapter(TaskSpec)
_ROOM: TypeAdapter[Room] = TypeAdapter(Room)
_WHY: TypeAdapter[Why] = TypeAdapter(Why)


def is_id(value: int) -> bool:
    """Whether the number can name a row at all."""
    return 0 < value <= MAX_ID


def dump_events(events: IntervalSet) -> str:
    """Events as a JSON list of bounds."""
    return "[" + ",".join(map(str, events.bounds)) + "]"


def load_events(text: str) -> IntervalSet:
    """Inverse of :func:`dump_events`.

    Raises:
        CorruptData: the text is no list of bounds.
    """
    if text == "[]":
        return EMPTY
    try:
        return IntervalSet(tuple(json.loads(text)))
    except (ValueError, TypeError, HpcPandaError) as error:
        raise CorruptData(f"stored events are damaged: {error}") from error


def dump_spec(spec: TaskSpec) -> str:
    """A task's specification as JSON; equal specifications give equal text."""
    return _SPEC.dump_json(spec).decode()


def load_spec(text: str) -> TaskSpec:
    """Inverse of :func:`dump_spec`. Many small specifications are remembered, and a few large ones.

    Raises:
        CorruptData: the text is no specification.
    """
    return _small_spec(text) if len(text) <= SMALL_SPEC else _large_spec(text)


def _load_spec(text: str) -> TaskSpec:
    try:
        return _SPEC.validate_json(text)
    except ValueError as error:
        raise CorruptData(f"a stored task specification is damaged: {error}") from error


_small_spec = lru_cache(maxsize=256)(_load_spec)
_large_spec = lru_cache(maxsize=4)(_load_spec)


def dump_room(room: Room | None) -> str | None:
    """What an edge has room for as JSON."""
    return None if room is None else _ROOM.dump_json(room).decode()


@lru_cache(maxsize=1024)
def load_room(text: str | None) -> Room | None:
    """Inverse of :func:`dump_room`.

    Raises:
        CorruptData: the text is no room.
    """
    try:
        return None if text is None else _ROOM.validate_json(text)
    except ValueError as error:
        raise CorruptData(f"what an edge has room for is damaged in the store: {error}") from error


def dump_why(why: Why) -> str:
    """A reason as JSON."""
    return _WHY.dump_json(why).decode()


def load_why(text: str) -> Why:
    """Inverse of :func:`dump_why`.

    Raises:
        CorruptData: the text is no reason.
    """
    try:
        return _WHY.validate_json(text)
    except ValueError as error:
        raise CorruptData(f"a stored reason is damaged: {error}") from error
