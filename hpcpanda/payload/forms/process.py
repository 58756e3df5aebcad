"""The process form: a long-lived program a worker, fed ranges over a line protocol.

The protocol is specified in docs/reference/payload.md. Requests and replies have descriptors of their
own, so that whatever libraries print on stdout cannot be taken for a reply.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from pathlib import Path

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.payloads import ProcessPayload
from hpcpanda.domain.task import TaskSpec
from hpcpanda.payload.forms import child
from hpcpanda.payload.forms.failure import clip, ending
from hpcpanda.payload.forms.ports import Contain
from hpcpanda.payload.work import InputTable

MAX_REPLY = 4096
"""Longest reply line, bytes, its newline included."""
BYE_SECONDS = 5.0
"""How long a process may take to end after ``bye`` before it is killed."""


class PreparedProcess:
    """A command whose program is known to exist; processes are started by the workers."""

    def __init__(self, spec: TaskSpec, payload: ProcessPayload, contain: Contain | None = None) -> None:
        child.check_program(payload.command, payload.environment, contained=contain is not None)
        if spec.inputs is not None and any("\n" in f.path for f in spec.inputs.files):
            raise PayloadFailed("inputs.files.path: a path with a newline cannot be sent to a process")
        self.words = [child.fill(word, {"seed": str(spec.seed)}) for word in payload.command]
        """Words of the command."""
        self.environment = payload.environment
        """Variables that its processes are given."""
        self.contain = contain
        """Puts them into the task's container."""
        self.inputs = InputTable(spec.inputs) if spec.inputs is not None else None
        """Finds the input entries of a range; None without inputs."""
        self.seed = spec.seed
        """The task's seed."""

    def runner(self, work_folder: Path) -> ProcessRunner:
        """A runner whose process runs in ``work_folder``, started with the first range."""
        return ProcessRunner(self, work_folder)


class ProcessRunner:
    """Feeds ranges to the process; one that broke the protocol is replaced before the next range."""

    def __init__(self, prepared: PreparedProcess, work_folder: Path) -> None:
        if "\n" in str(work_folder):
            raise PayloadFailed("the work folder's path has a newline and cannot be sent to a process")
        self._prepared = prepared
        self._folder = work_folder
        self._output = work_folder / "output"
        self._process: _Conversation | None = None

    def run(self, first: int, last: int) -> bytes:
        """The content of the output file; see :class:`hpcpanda.payload.forms.Runner`."""
        child.remove(self._output)
        if self._process is not None and self._process.ended():
            self._replace()
        if self._process is None:
            self._process = _Conversation(self._prepared, self._folder)
        where = f"{Path(self._prepared.words[0]).name} on events [{first}, {last})"
        try:
            reply = self._process.ask(self._request(first, last))
        except _Broken as error:
            self._replace()
            raise PayloadFailed(f"{where}: {error}; it is started anew for the next range") from None
        except BaseException:
            self._replace()
            raise
        if reply != "done":
            child.remove(self._output)
            raise PayloadFailed(clip(f"{where}: {reply}"))
        try:
            return child.collect(self._output)
        except PayloadFailed as error:
            self._replace()
            raise PayloadFailed(f"{where}: replied 'done', but {error}") from None

    def close(self) -> None:
        """Say ``bye``, wait up to :data:`BYE_SECONDS`, then kill."""
        if self._process is not None:
            self._process.bye()
            self._process = None

    def _replace(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _request(self, first: int, last: int) -> bytes:
        slices = self._prepared.inputs.slices(first, last) if self._prepared.inputs is not None else ()
        lines = [f"input {s.first} {s.last} {s.path}\n" for s in slices]
        lines.append(f"run {first} {last} {self._prepared.seed} {self._output}\n")
        return os.fsencode("".join(lines))


class _Broken(Exception):
    """The process died or broke the protocol; the message says how."""


class _Conversation:
    """One living process and the two pipes to it."""

    def __init__(self, prepared: PreparedProcess, folder: Path) -> None:
        its_requests, self._requests = os.pipe()
        self._replies, its_replies = os.pipe()
        numbers = {"HPCPANDA_IN": str(its_requests), "HPCPANDA_OUT": str(its_replies)}
        try:
            self._process: subprocess.Popen[bytes] = child.start(
                prepared.words, prepared.environment | numbers, folder, (its_requests, its_replies),
                contain=prepared.contain,
            )  # fmt: skip
        except BaseException:
            os.close(self._requests)
            os.close(self._replies)
            raise
        finally:
            os.close(its_requests)
            os.close(its_replies)
        # Its death is noticed at once even if something it started keeps the pipe open.
        self._death: int | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._death = os.pidfd_open(self._process.pid)
        self._poll = select.poll()
        for descriptor in (self._replies, self._death):
            if descriptor is not None:
                self._poll.register(descriptor, select.POLLIN)

    def ended(self) -> bool:
        """Whether the process has ended since its last reply, which is no fault of the next range."""
        return any(d == self._death or events == select.POLLHUP for d, events in self._poll.poll(0))

    def ask(self, request: bytes) -> str:
        """Send a request and wait for its reply: ``done`` or ``failed ...``."""
        if self._poll.poll(0):
            raise _Broken(f"replied without being asked: {_shown(self._more())}")
        try:
            while request:
                request = request[os.write(self._requests, request) :]
        except OSError:
            raise _Broken(self._how_it_ended()) from None
        line = b""
        while not line.endswith(b"\n"):
            line += self._more()
            if len(line) > MAX_REPLY:
                raise _Broken(f"replied more than {MAX_REPLY} bytes: {_shown(line)}")
        if line.count(b"\n") > 1:
            raise _Broken(f"replied more than one line: {_shown(line)}")
        reply = line[:-1].decode(errors="replace")
        if reply != "done" and reply != "failed" and not reply.startswith("failed "):
            raise _Broken(f"replied {_shown(line)} instead of 'done' or 'failed <text>'")
        return reply

    def _more(self) -> bytes:
        readable = {descriptor for descriptor, _ in self._poll.poll()}
        if self._replies not in readable:
            raise _Broken(self._how_it_ended())
        data = os.read(self._replies, MAX_REPLY + 1)
        if not data:
            raise _Broken(self._how_it_ended())
        return data

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            return "closed its reply descriptor without a reply"
        return f"ended without a reply, {ending(status)}; what it printed is in the node's log"

    def kill(self) -> None:
        """End the process now."""
        self._process.kill()
        self._process.wait()
        self._close()

    def bye(self) -> None:
        """Ask the process to end, and see to it that it does."""
        with contextlib.suppress(OSError):
            os.write(self._requests, b"bye\n")
        os.close(self._requests)
        self._requests = -1
        try:
            self._process.wait(timeout=BYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        for descriptor in (self._requests, self._replies, self._death):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)


def _shown(line: bytes) -> str:
    return repr(line[:80]) + ("..." if len(line) > 80 else "")
