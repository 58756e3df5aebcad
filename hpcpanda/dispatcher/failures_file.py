"""Read the rules for failures: those that come with hpcpanda, or an operator's own. TOML with the fields of
:class:`hpcpanda.brokerage.failures.FailureRules`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hpcpanda.brokerage.failures import FailureRules
from hpcpanda.dispatcher.wording import field_errors
from hpcpanda.domain.errors import InvalidValue

MAX_BYTES = 2**20
_RULES: TypeAdapter[FailureRules] = TypeAdapter(FailureRules)


@cache
def standard_rules() -> FailureRules:
    """The rules that come with hpcpanda."""
    return _parse(
        "failure_rules.toml", files("hpcpanda.brokerage").joinpath("failure_rules.toml").read_bytes()
    )


def load_rules(path: Path) -> FailureRules:
    """The rules in a file.

    Raises:
        InvalidValue: the file cannot be read, is too large, is not TOML, or a field is wrong; the message names file
            and field.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidValue(str(path), f"cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise InvalidValue(str(path), f"is larger than {MAX_BYTES} bytes")
    return _parse(str(path), content)


def _parse(name: str, content: bytes) -> FailureRules:
    try:
        return _RULES.validate_python(tomllib.loads(content.decode()))
    except ValidationError as error:
        raise InvalidValue(name, "; ".join(field_errors(error.errors(include_url=False)))) from error
    except (ValueError, RecursionError) as error:
        raise InvalidValue(name, f"is not TOML: {error}") from error
