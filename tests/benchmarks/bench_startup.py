"""Time from the start of the head to the first journalled event, started directly and through Parsl.

``python -m tests.benchmarks.bench_startup`` prints the median and the extremes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from hpcpanda.allocation.plan import Drain
from hpcpanda.domain.site import PackVia
from hpcpanda.events.journal import read_journal
from tests.support.allocation import Rig, event_pack

RUNS = {PackVia.DIRECT: 5, PackVia.PARSL: 3}


def seconds_to_first_event(via: PackVia, nodes: int) -> float:
    """Start an allocation, wait for its first journal entry, end it."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), nodes=nodes, cores=2 // nodes, via=via, linger_s=0.0)
        pack = event_pack((1, 0, 10**6), nodes=nodes, settings={"event_ms": 5})
        began = time.monotonic()
        rig.start(pack)
        rig.until(lambda: any(len(read_journal(p).entries) for p in rig.journals()), "the first event", 40)
        took = time.monotonic() - began
        rig.send(Drain(grace_s=1.0))
        rig.wait(60)
        assert not rig.gone()
        return took


def main() -> None:
    """Print figures."""
    print("seconds from the head's start to the first journalled event")
    for nodes in (1, 2):
        for via, runs in RUNS.items():
            took = [seconds_to_first_event(via, nodes) for _ in range(runs)]
            print(
                f"{via.value:8} {nodes} rank(s): median {statistics.median(took):5.2f}"
                f"  ({min(took):.2f} to {max(took):.2f}, {runs} runs)"
            )


if __name__ == "__main__":
    main()
