"""Read the file in which an operator says how computing is shared: TOML with the fields of
:class:`hpcpanda.brokerage.shares.SharePlan`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hpcpanda.brokerage.shares import SharePlan
from hpcpanda.dispatcher.wording import field_errors
from hpcpanda.domain.errors import InvalidValue

MAX_BYTES = 4 * 2**20
_PLAN: TypeAdapter[SharePlan] = TypeAdapter(SharePlan)


def load_shares(path: Path) -> SharePlan:
    """The plan in a file.

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
    try:
        return _PLAN.validate_python(tomllib.loads(content.decode()))
    except ValidationError as error:
        raise InvalidValue(str(path), "; ".join(field_errors(error.errors(include_url=False)))) from error
    except (ValueError, RecursionError) as error:
        raise InvalidValue(str(path), f"is not TOML: {error}") from error
