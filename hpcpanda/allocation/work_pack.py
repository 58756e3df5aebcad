"""The MPI program of a work pack: one rank a node, each with its agents; rank 0 is also the director.

Started by the head as ``LAUNCHER python -m hpcpanda.allocation.work_pack PACK_RUN_FILE``. The head's
messages come to rank 0 as JSON lines on stdin, its answers go as JSON lines to the original stdout;
what anything else prints goes to stderr. When stdin ends, the head is gone, and so is the pack.
"""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from pathlib import Path
from typing import Final

from hpcpanda.allocation.director import Director, Send
from hpcpanda.allocation.forkserver import die_with_parent
from hpcpanda.allocation.node_agents import NodeAgents
from hpcpanda.allocation.pack_line import HeadLine
from hpcpanda.allocation.pack_run import PACK_RUN, PackRun
from hpcpanda.allocation.plan import Drain, WorkPack
from hpcpanda.allocation.rank_messages import NodeUse, RankBye, ToldToEnd
from hpcpanda.allocation.ranks import MpiRanks, OneRank, Ranks
from hpcpanda.allocation.signals import wake_on
from hpcpanda.allocation.spool import read_message
from hpcpanda.domain.room import Room

_STATUS_S: Final = 1.0
_NAP_S: Final = (0.002, 0.02, 0.05)
"""Times between two looks at MPI: a tenth of the silence so far; at least the first when the node waits for work or has
just begun, else at least the second, since a node asks long before its work runs out; at most the third."""

_BEGIN_S: Final = 2.0


class PackRank:
    """One rank's loop."""

    def __init__(self, run: PackRun, pack: WorkPack, line: HeadLine) -> None:
        self._run = run
        self._selector = selectors.DefaultSelector()
        self._agents = NodeAgents(run, pack, self._selector)  # forks, before MPI is initialised
        self._ranks: Ranks = OneRank() if pack.nodes == 1 else MpiRanks()
        self._agents.begin(self._ranks.rank, self._ranks.to_director)
        self._director: Director | None = None
        self._line = line
        self._told = self._used = time.monotonic()
        self._was_idle = False
        self._gone = False
        if self._ranks.rank == 0:
            now = time.monotonic()
            node = Room.of_site(run.site)
            deadline = now + run.deadline - time.time()
            self._director = Director(pack, incarnation=run.incarnation, node=node, deadline=deadline)
            self._deliver(self._director.begin(now))
            self._selector.register(0, selectors.EVENT_READ, self._on_head)
        self._wake_on_signals()

    def loop(self) -> None:
        """Run until the pack has ended."""
        began = heard = time.monotonic()
        while not self._ended:
            timeout = self._agents.tick()
            if self._ranks.size > 1:
                now = time.monotonic()
                urgent, calm, longest = _NAP_S
                shortest = urgent if self._agents.hungry or now - began < _BEGIN_S else calm
                timeout = min(timeout, longest, max(shortest, (now - heard) / 10))
            for key, _ in self._selector.select(timeout):
                if self._selector.get_map().get(key.fd) is key:  # not closed by an earlier one of these
                    key.data()
            while self._exchange():
                heard = time.monotonic()
            self._say_use()
            if self._agents.ended and not self._gone:
                self._gone = True
                self._ranks.to_director(RankBye())
            self._tell(force=False)
        self._tell(force=True)
        self._ranks.close()
        self._agents.close()

    @property
    def _ended(self) -> bool:
        return self._director.ended if self._director is not None else self._gone

    def _exchange(self) -> bool:
        """Deliver messages; whether there were any."""
        for_rank = self._ranks.for_rank()
        for message in for_rank:
            self._agents.receive(message)
        if self._director is None:
            return bool(for_rank)
        for_director = self._ranks.for_director()
        for rank, said in for_director:
            self._deliver(self._director.from_rank(rank, said, time.monotonic()))
        return bool(for_rank or for_director)

    def _deliver(self, sends: list[Send]) -> None:
        for send in sends:
            self._ranks.to_rank(send.rank, send.message)

    def _on_head(self) -> None:
        assert self._director is not None
        messages = self._line.read()
        if messages is None:
            self._selector.unregister(0)
            messages = [Drain(grace_s=1.0)]
        for message in messages:
            self._deliver(self._director.from_head(message, time.monotonic()))
            self._told = 0.0

    def _say_use(self) -> None:
        """Tell the director how busy the cores were."""
        now = time.monotonic()
        over = now - self._used
        if over < _STATUS_S or self._gone:
            return
        self._used = now
        events, jobs = self._agents.use(now, over)
        self._ranks.to_director(NodeUse(events=events, jobs=jobs))

    def _tell(self, *, force: bool) -> None:
        """Report to the head once a second, and at once when the work runs out."""
        if self._director is None:
            return
        now = time.monotonic()
        idle = self._director.idle
        if force or now - self._told >= _STATUS_S or idle > self._was_idle:
            self._told = now
            try:
                self._line.tell(self._director.status(now))
            except BrokenPipeError:
                self._deliver(self._director.from_head(Drain(grace_s=1.0), now))
        self._was_idle = idle

    def _wake_on_signals(self) -> None:
        """Where the batch system signals the ranks and not the head, the head hears of it from them."""
        wake = wake_on(signal.SIGTERM, signal.SIGUSR1)

        def on_signal() -> None:
            if set(os.read(wake, 64)) & {signal.SIGTERM, signal.SIGUSR1}:
                self._ranks.to_director(ToldToEnd())
                self._told = 0.0
                self._agents.finish(self._run.site.allocation.grace_s)

        self._selector.register(wake, selectors.EVENT_READ, on_signal)


def main() -> None:
    """Entry point of each rank."""
    die_with_parent()
    line = HeadLine()
    run = read_message(Path(sys.argv[1]), PACK_RUN)
    assert isinstance(run.pack, WorkPack)
    PackRank(run, run.pack, line).loop()


if __name__ == "__main__":
    main()
