"""The callable form: a Python function, called in the worker itself."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms.failure import from_exception
from hpcpanda.payload.work import InputTable, RangeWork


class PreparedCall:
    """The imported function and the state its set-up returned."""

    def __init__(self, spec: TaskSpec, payload: CallablePayload) -> None:
        settings = MappingProxyType(dict(payload.settings))
        _extend_path(payload.python_path)
        self._call = _load("payload.call", payload.call)
        state = None
        if payload.setup is not None:
            setup = _load("payload.setup", payload.setup)
            try:
                state = setup(settings)
            except BaseException as error:
                raise from_exception(f"set-up {payload.setup} failed", error) from error
        self._fixed = {"seed": spec.seed, "settings": settings, "state": state, "inputs": ()}
        self._inputs = InputTable(spec.inputs) if spec.inputs is not None else None
        self._name = payload.call

    def runner(self, work_folder: Path) -> CallRunner:
        """A runner in this process; callables have no need of the work folder."""
        del work_folder
        return CallRunner(self._name, self._call, self._fixed, self._inputs)


class CallRunner:
    """Calls the user's function once a range."""

    def __init__(
        self, name: str, call: Callable[[RangeWork], object], fixed: dict[str, Any], inputs: InputTable | None
    ) -> None:
        self._name = name
        self._call = call
        self._fixed = fixed
        self._inputs = inputs

    def run(self, first: int, last: int) -> object:
        """What the function returns for the range; see :class:`hpcpanda.payload.forms.Runner`."""
        # Ranges may be single cheap events: filling the instance beats the generated constructor,
        # which passes every field of a frozen class through object.__setattr__.
        work = object.__new__(RangeWork)
        fields = work.__dict__
        fields.update(self._fixed)
        fields["first"] = first
        fields["last"] = last
        if self._inputs is not None:
            fields["inputs"] = self._inputs.slices(first, last)
        try:
            return self._call(work)
        except BaseException as error:
            raise from_exception(f"{self._name} failed on events [{first}, {last})", error) from error

    def close(self) -> None:
        """Nothing to end."""


def _extend_path(folders: tuple[str, ...]) -> None:
    for folder in reversed(folders):
        if folder in sys.path:
            sys.path.remove(folder)
        sys.path.insert(0, folder)
    importlib.invalidate_caches()


def _load(field: str, reference: str) -> Callable[[Any], object]:
    module_name, _, function_name = reference.partition(":")
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:
        raise from_exception(f"{field}: module {module_name!r} cannot be imported", error) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        found = "has no" if function is None else "has a value, not a function,"
        where = getattr(module, "__file__", None) or module_name
        raise PayloadFailed(f"{field}: {where} {found} {function_name!r}")
    loaded: Callable[[Any], object] = function
    return loaded
