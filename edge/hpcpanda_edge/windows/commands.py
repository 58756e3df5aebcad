"""Calling a batch system's client programs so that neither they nor their output can hurt the edge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hpcpanda.domain.errors import Unavailable

_FORGET: Final = ("SQUEUE_", "SINFO_", "SCONTROL_", "SLURM_TIME_FORMAT", "LSB_BJOBS_FORMAT", "LSB_BSLOTS_")
"""Variables of the user's shell that change what the programs print."""
_SAID: Final = 300
"""Characters of a failing program's words that are passed on."""
_CHUNK: Final = 65_536
_END_S: Final = 5.0
"""How long the end of a killed program is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallLimits:
    """What one call may take."""

    timeout_s: float = 20.0
    output_bytes: int = 32 * 1024 * 1024
    """More output than this ends the program; the look fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a program said."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Its words, for people: one line, printable, short."""
        words = " ".join((self.err.strip() or self.out.strip()).split())
        return "".join(c if c.isprintable() else "?" for c in words[:_SAID]) or "nothing"


def client_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for client programs: English words, and times in UTC, whatever the user's shell says.

    Slurm and PBS clients print times in the zone of ``TZ``; in UTC no hour comes twice or is missing.
    """
    environment = {k: v for k, v in (base or os.environ).items() if not k.startswith(_FORGET)}
    return environment | {"LC_ALL": "C", "LANG": "C", "TZ": "UTC"}


async def ask(argv: Sequence[str], limits: CallLimits) -> Answer:
    """Run a program, whatever its exit status.

    Raises:
        Unavailable: it cannot be started, takes too long, or says too much.
    """
    name = argv[0]
    process = await _start(argv)
    assert process.stdout is not None
    assert process.stderr is not None
    streams = process.stdout, process.stderr
    reads = [asyncio.create_task(_read(name, stream, limits.output_bytes)) for stream in streams]
    finished = False
    try:
        async with asyncio.timeout(limits.timeout_s):
            out, err = await asyncio.gather(*reads)
            status = await process.wait()
            finished = True
    except TimeoutError:
        raise Unavailable(f"{name} did not answer within {limits.timeout_s:g} s") from None
    finally:
        if not finished:
            await _end(process, reads)
    return Answer(status=status, out=out.decode("utf-8", "replace"), err=err.decode("utf-8", "replace"))


async def output_of(argv: Sequence[str], limits: CallLimits) -> str:
    """What a program prints.

    Raises:
        Unavailable: as :func:`ask`, or it fails.
    """
    answer = await ask(argv, limits)
    if answer.status != 0:
        raise Unavailable(f"{argv[0]} failed with status {answer.status}: {answer.said}")
    return answer.out


async def _start(argv: Sequence[str]) -> asyncio.subprocess.Process:
    """Start a program in a session of its own.

    A cancellation waits until it has started and can be ended with its children: asyncio would end the program alone,
    and wait for children that keep its streams open.

    Raises:
        Unavailable: it cannot be started.
    """
    start = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=client_environment(),
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(start)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError, ValueError):
            await _end(await start, ())
        raise
    except FileNotFoundError:
        raise Unavailable(f"{argv[0]} is not on the PATH of the edge") from None
    except (OSError, ValueError) as error:
        raise Unavailable(f"{argv[0]} cannot be started: {error}") from None


async def _read(name: str, stream: asyncio.StreamReader, most: int) -> bytes:
    """Everything up to the end.

    Raises:
        Unavailable: it is too much.
    """
    data = bytearray()
    while chunk := await stream.read(_CHUNK):
        data += chunk
        if len(data) > most:
            raise Unavailable(f"{name} printed more than {most} bytes")
    return bytes(data)


async def _end(process: asyncio.subprocess.Process, reads: Sequence[asyncio.Task[bytes]]) -> None:
    """Kill a program and its children, and take its exit status.

    The streams are emptied: a process counts as ended only when they are. Something that left the program's session
    may keep them open, so this is not waited for without end.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for task in reads:
        task.cancel()
    await asyncio.gather(*reads, return_exceptions=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(_CHUNK):
                    pass
            await process.wait()
