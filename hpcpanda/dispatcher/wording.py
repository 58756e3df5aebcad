"""Words for people: what is wrong with a document, a line a field; numbers of events and jobs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hpcpanda.dispatcher.field_names import meant
from hpcpanda.domain.errors import InvalidValue

FORMS = {
    "CallablePayload": "callable",
    "CommandPayload": "command",
    "ProcessPayload": "process",
    "JobPayload": "job",
}
"""Names under which a validator tries the forms of a payload."""


def counted(count: int, unit: str) -> str:
    """``1 event``, ``5 jobs``."""
    return f"1 {unit}" if count == 1 else f"{count} {unit}s"


def field_errors(errors: Iterable[Mapping[str, Any]], model: type | None = None) -> list[str]:
    """One line a wrong field, ``path: problem``, from the errors of a pydantic validator.

    A payload that fits none of its forms is judged by the form it resembles most. With the data class that was to be read,
    a field that there is not comes with the one that may have been meant.
    """
    listed = [(tuple(error["loc"]), error) for error in errors]
    form = _resembled(loc for loc, _ in listed)
    lines = [
        _line([part for part in loc if part not in FORMS], error, model)
        for loc, error in listed
        if form is None or not FORMS.keys() & set(loc) or form in loc
    ]
    return list(dict.fromkeys(lines))


def _resembled(locs: Iterable[tuple[Any, ...]]) -> str | None:
    """The form of payload with the fewest errors, one whose ``form`` is wrong last."""
    faults: dict[str, int] = {}
    for loc in locs:
        for name in FORMS.keys() & set(loc):
            faults[name] = faults.get(name, 0) + (1000 if loc[-1] == "form" else 1)
    return min(faults, key=lambda name: faults[name]) if faults else None


def _line(path: list[Any], error: Mapping[str, Any], model: type | None) -> str:
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, InvalidValue):
        tail = cause.field.split(".")
        while path and tail and str(path[-1]) == tail[0] and len(tail) > 1:
            tail = tail[1:]
        return f"{'.'.join(map(str, [*path, *tail]))}: {cause.problem}"
    where = ".".join(map(str, path)) or "document"
    return f"{where}: {plainly(error, where, model)}"


def plainly(error: Mapping[str, Any], field: str, model: type | None) -> str:
    """What a validator says is wrong with a field, in words of those who write files of a model."""
    match error.get("type"):
        case "unexpected_keyword_argument" | "extra_forbidden":
            other = meant(field, model) if model is not None else None
            return "there is no such field" + (f"; did you mean {other}?" if other is not None else "")
        case "tuple_type" | "list_type":
            return 'must be a list, such as ["one", "two"]'
        case "dataclass_type":
            return f"must be a table, as [{field}]"
        case _:
            return str(error["msg"]).removeprefix("Value error, ")
