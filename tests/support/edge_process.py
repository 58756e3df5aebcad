"""An edge in a process of its own, with the stand-in batch system: ``python edge_process.py SITE.json URL TOKEN``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from hpcpanda_edge.daemon import Edge, run_until_signalled
from hpcpanda_edge.state_folder import StateFolder
from support.edge import FakeScheduler

from hpcpanda.client.async_sdk import AsyncDispatcherClient
from hpcpanda.client.site_file import SITE


async def main() -> None:
    site = SITE.validate_json(Path(sys.argv[1]).read_bytes())
    folder = StateFolder.of(site.spool)
    folder.create()
    with folder.only_one():
        async with AsyncDispatcherClient(sys.argv[2], sys.argv[3]) as client:
            await run_until_signalled(Edge(site, client, FakeScheduler(), round_s=0.05))


if __name__ == "__main__":
    asyncio.run(main())
