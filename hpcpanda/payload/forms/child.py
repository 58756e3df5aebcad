"""What command and process payloads share: filling in words, starting programs, reading their output.

A program started here stays in the worker's process group and dies with the worker, however the
worker ends.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.payload.forms.failure import clip
from hpcpanda.payload.forms.ports import Contain

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def die_with(parent: int) -> Callable[[], None]:
    """A function for a freshly forked child: from then on it is killed when process ``parent`` ends."""

    def arm() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the request was in force
            os._exit(127)

    return arm


def fill(word: str, values: Mapping[str, str]) -> str:
    """The word with ``{name}`` replaced for each known name; other braces stay as they are."""
    return _pattern(values).sub(lambda match: values[match[1]], word)


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile(r"\{(" + "|".join(names) + r")\}")


def check_program(command: tuple[str, ...], environment: Mapping[str, str], *, contained: bool) -> None:
    """Look for a command's program before any range is run; one in a container is found when it starts.

    Raises:
        PayloadFailed: there is no such program, or a word still has ``{here}`` in it.
    """
    if any("{here}" in word for word in (*command, *environment.values())):
        raise PayloadFailed(
            "payload.command: {here} stands for the folder of a task file; it is filled in when a task file is read"
        )
    program = command[0]
    if contained or "{" in program:
        return
    if "/" in program and not program.startswith("/"):
        raise PayloadFailed(
            f"payload.command: {program!r} is a relative path; write {{here}}/{program} in the task file, or an absolute path"
        )
    path = environment.get("PATH", os.environ.get("PATH", os.defpath))
    if shutil.which(program, path=path) is None:
        place = "" if "/" in program else f" on PATH {clip(path, 300)}"
        raise PayloadFailed(
            f"payload.command: there is no program {program!r}{place}, or it is not executable"
        )


def start(
    words: list[str],
    variables: Mapping[str, str],
    folder: Path,
    pass_fds: tuple[int, ...] = (),
    *,
    contain: Contain | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in ``folder``, in a container if need be: stdin is empty, stdout and stderr are the worker's.

    A program outside a container has the worker's environment, with the variables added.

    Raises:
        PayloadFailed: it cannot be started.
    """
    environment = dict(os.environ)
    try:
        if contain is not None:
            words = contain(words, folder, variables)
        else:
            environment.update(variables)
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            cwd=folder,
            env=environment,
            pass_fds=pass_fds,
            preexec_fn=die_with(os.getpid()),  # noqa: PLW1509 - workers have one thread
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise PayloadFailed(f"cannot start {words[0]!r}: {error}") from error


def remove(output: Path) -> None:
    """Remove what an earlier range left at the output path, whatever it is.

    Raises:
        PayloadFailed: it cannot be removed.
    """
    try:
        output.unlink(missing_ok=True)
    except OSError:
        try:
            shutil.rmtree(output)
        except OSError as error:
            raise PayloadFailed(f"cannot clear the output path: {error}") from error


def collect(output: Path) -> bytes:
    """The bytes a program wrote at its output path; the file is gone afterwards.

    Raises:
        PayloadFailed: there is no regular file, or it cannot be read.
    """
    try:
        if not stat.S_ISREG(output.stat().st_mode):
            raise PayloadFailed("the output path is not a regular file")
        data = output.read_bytes()
        output.unlink()
    except FileNotFoundError:
        raise PayloadFailed("it wrote no output file") from None
    except OSError as error:
        raise PayloadFailed(f"its output cannot be read: {error}") from error
    return data
