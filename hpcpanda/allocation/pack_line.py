"""The line between the head and the first rank of a pack: JSON lines on stdin and on the original stdout."""

from __future__ import annotations

import os
from typing import Final

from hpcpanda.allocation.plan import PackStatus, ToPack
from hpcpanda.events.adapter import Adapter

STATUS: Final[Adapter[PackStatus]] = Adapter(PackStatus)
FROM_HEAD: Final[Adapter[ToPack]] = Adapter(ToPack)


class HeadLine:
    """The pack's end of the line."""

    def __init__(self) -> None:
        """Take the line over: from now on what anything else prints goes to stderr."""
        self._reports = os.dup(1)
        os.set_inheritable(self._reports, False)  # noqa: FBT003 - the system call's own signature
        os.dup2(2, 1)
        os.set_blocking(0, False)
        self._partial = b""

    def read(self) -> list[ToPack] | None:
        """Messages that have arrived; None when the head is gone."""
        try:
            got = os.read(0, 1 << 20)
        except BlockingIOError:
            return []
        if not got:
            return None
        *lines, self._partial = (self._partial + got).split(b"\n")
        return [FROM_HEAD.validate_json(line) for line in lines]

    def tell(self, status: PackStatus) -> None:
        """Report to the head. Raises BrokenPipeError when it is gone."""
        os.write(self._reports, STATUS.dump_json(status) + b"\n")
