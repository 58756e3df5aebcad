"""The command form: one run of a program a range."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.payloads import CommandPayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms import child
from hpcpanda.payload.forms.failure import ending
from hpcpanda.payload.forms.ports import Contain
from hpcpanda.payload.work import InputTable

_OF_INPUT = ("{input}", "{input_first}", "{input_last}")


class PreparedCommand:
    """A command whose program is known to exist."""

    def __init__(self, spec: TaskSpec, payload: CommandPayload, contain: Contain | None = None) -> None:
        child.check_program(payload.command, payload.environment, contained=contain is not None)
        self._words = [(word, any(name in word for name in _OF_INPUT)) for word in payload.command]
        if spec.inputs is None and any(of_input for _, of_input in self._words):
            raise PayloadFailed("payload.command: names {input}, but the task has no inputs")
        self._environment = payload.environment
        self._contain = contain
        self._inputs = InputTable(spec.inputs) if spec.inputs is not None else None
        self._seed = spec.seed

    def runner(self, work_folder: Path) -> CommandRunner:
        """A runner whose programs run in ``work_folder``."""
        return CommandRunner(self, work_folder)

    def start_words(self, first: int, last: int, output: str) -> list[str]:
        """The command's words for one range. Words about the input are repeated for each file covered."""
        values = {
            "first": str(first),
            "last": str(last),
            "count": str(last - first),
            "seed": str(self._seed),
            "output": output,
        }
        slices = self._inputs.slices(first, last) if self._inputs is not None else ()
        of_slices = [
            values | {"input": s.path, "input_first": str(s.first), "input_last": str(s.last)} for s in slices
        ]
        words: list[str] = []
        for word, of_input in self._words:
            words += [child.fill(word, v) for v in (of_slices if of_input else [values])]
        return words

    def start(self, words: list[str], folder: Path) -> subprocess.Popen[bytes]:
        """Start the program, in the task's container if it has one."""
        return child.start(words, self._environment, folder, contain=self._contain)


class CommandRunner:
    """Starts the command once a range and reads the file it writes."""

    def __init__(self, prepared: PreparedCommand, work_folder: Path) -> None:
        self._prepared = prepared
        self._folder = work_folder
        self._output = work_folder / "output"

    def run(self, first: int, last: int) -> bytes:
        """The content of the output file; see :class:`hpcpanda.payload.forms.Runner`."""
        words = self._prepared.start_words(first, last, str(self._output))
        where = f"{Path(words[0]).name} on events [{first}, {last})"
        child.remove(self._output)
        process = self._prepared.start(words, self._folder)
        try:
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if status != 0:
            child.remove(self._output)
            raise PayloadFailed(f"{where}: {ending(status)}; what it printed is in the node's log")
        try:
            return child.collect(self._output)
        except PayloadFailed as error:
            raise PayloadFailed(f"{where}: {error}") from None

    def close(self) -> None:
        """Nothing to end: no program outlives its range."""
