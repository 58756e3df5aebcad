"""Runs a Podman client so that its container ends with it: ``python -m hpcpanda.allocation.podman_guard podman run ...``.

Podman's container is a child of conmon, which detaches itself: killing the client alone leaves the container running.
The guard adopts conmon, so that the container's processes are its descendants, for whoever watches their memory.
A watcher in a session of its own waits for the guard's end, however it comes, and has the container killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import uuid
from typing import Final, NoReturn

_PR_SET_CHILD_SUBREAPER: Final = 36
_ENDED: Final = b"."


def main() -> NoReturn:
    """Run the client and leave with its exit status."""
    program, verb, *rest = sys.argv[1:]
    name = f"hpcpanda-{uuid.uuid4().hex}"
    watched, held = os.pipe()
    if os.fork() == 0:
        os.close(held)
        _watch(watched, [program, "kill", "--signal=KILL", name])
    os.close(watched)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    client = subprocess.Popen([program, verb, f"--name={name}", *rest])
    # The client passes these on to the container.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda caught, _frame: client.send_signal(caught))
    status = client.wait()
    if status >= 0:
        os.write(held, _ENDED)
    os._exit(status if status >= 0 else 128 - status)


def _watch(watched: int, kill: list[str]) -> NoReturn:
    """Wait until the other end is closed; unless the client had ended by itself, have the container killed."""
    os.setsid()
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    if os.read(watched, 1) != _ENDED:
        # The container may only just be on its way.
        for _ in range(20):
            if subprocess.run(kill, check=False).returncode == 0:
                break
            signal.sigtimedwait([], 0.25)
    os._exit(0)


if __name__ == "__main__":
    main()
