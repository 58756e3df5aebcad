"""Client programs are called so that they cannot hang, flood or mislead the edge."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from hpcpanda_edge.windows.commands import CallLimits, ask, client_environment, output_of

from hpcpanda.domain.errors import Unavailable

LIMITS = CallLimits(timeout_s=20.0, output_bytes=10_000)


async def test_what_a_program_prints() -> None:
    """Output comes back as text, whatever bytes it is made of."""
    code = "import sys; sys.stdout.buffer.write(b'n1\\xff\\n'); print('w', file=sys.stderr); sys.exit(3)"
    answer = await ask((sys.executable, "-c", code), LIMITS)
    assert (answer.status, answer.out, answer.err) == (3, "n1\ufffd\n", "w\n")


async def test_a_missing_program() -> None:
    """The reason names the program that is missing."""
    with pytest.raises(Unavailable, match="no-such-program is not on the PATH"):
        await output_of(("no-such-program",), LIMITS)


async def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    """A file that is no program is a reason too."""
    (tmp_path / "sinfo").write_text("")
    with pytest.raises(Unavailable, match="cannot be started"):
        await output_of((str(tmp_path / "sinfo"),), LIMITS)


async def test_a_failing_program_is_quoted() -> None:
    """The reason has the status and the program's words, in one short printable line."""
    code = "import sys; sys.exit('slurm_load_jobs error:\\n\\x1b[31mdown' + 'x' * 1000)"
    with pytest.raises(
        Unavailable, match=r"failed with status 1: slurm_load_jobs error: \?\[31mdown"
    ) as error:
        await output_of((sys.executable, "-c", code), LIMITS)
    assert len(str(error.value)) < 500


async def test_a_program_that_does_not_answer_is_ended_with_its_children(tmp_path: Path) -> None:
    """After the time-out neither the program nor what it started is left."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 9>{fifo}; sleep 600 & sleep 600"
    try:
        with pytest.raises(Unavailable, match=r"sh did not answer within 0\.5 s"):
            await output_of(("sh", "-c", script), CallLimits(timeout_s=0.5))
        gone = await asyncio.to_thread(_end_of_file, reader)
        assert gone
    finally:
        os.close(reader)


def _end_of_file(fd: int) -> bool:
    """Whether nobody holds the other end of a pipe any more; waits for it."""
    os.set_blocking(fd, True)
    return os.read(fd, 1) == b""


@pytest.mark.parametrize("stream", ["1", "2"])
async def test_a_program_that_says_too_much_is_ended(stream: str) -> None:
    """Endless output, on either stream, costs bounded memory and no time-out."""
    with pytest.raises(Unavailable, match="more than 10000 bytes"):
        await output_of(("sh", "-c", f"yes 1>&{stream}"), LIMITS)


async def test_a_cancelled_call_ends_the_program(tmp_path: Path) -> None:
    """When the edge stops in the middle of a look, the program goes too."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    script = f"exec 9>{fifo}; echo x >&9; sleep 600"
    try:
        call = asyncio.create_task(output_of(("sh", "-c", script), CallLimits(timeout_s=60.0)))
        ready = asyncio.get_running_loop()
        started = asyncio.Event()
        ready.add_reader(reader, started.set)
        await started.wait()
        ready.remove_reader(reader)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        os.set_blocking(reader, True)
        assert await asyncio.to_thread(os.read, reader, 10) == b"x\n"
        assert await asyncio.to_thread(_end_of_file, reader)
    finally:
        os.close(reader)


def test_the_users_settings_do_not_change_what_is_printed() -> None:
    """Formats, filters, languages and zones of the user's shell are kept from the programs; the rest is not."""
    user = {
        "SQUEUE_FORMAT": "%i",
        "SLURM_TIME_FORMAT": "relative",
        "LC_ALL": "de_DE",
        "TZ": "CET",
        "SLURM_CONF": "/c",
    }
    assert client_environment(user) == {"SLURM_CONF": "/c", "LC_ALL": "C", "LANG": "C", "TZ": "UTC"}
