"""Two dispatchers over one PostgreSQL behind a plain proxy, of which one is killed every few seconds, and an edge."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hpcpanda.client.sdk import DispatcherClient

from .postgres import PostgresServer
from .proxy import Proxy
from .services import Services, wait_until

REPLICAS = 2


@dataclass(slots=True)
class Replicated(Services):
    """Services whose dispatcher is several replicas behind a proxy."""

    ports: tuple[int, ...] = field(default_factory=lambda: tuple(_free_port() for _ in range(REPLICAS)))
    proxy_url: str = ""

    def state_of(self, number: int) -> Path:
        """A replica's own state folder."""
        return self.state / "dispatcher" if number == 0 else self.state / f"dispatcher{number}"

    def start_replica(self, number: int) -> None:
        """Start a replica on its port, without waiting until it answers."""
        words = ("--port", str(self.ports[number]), "--state", str(self.state_of(number)))
        self._start(f"replica{number}", "hpcpanda", "dispatcher", "run", *words)

    def wait_for_replica(self, number: int) -> None:
        """Wait until a replica answers."""
        name = f"replica{number}"
        wait_until(lambda: self.answers(number), name, on_wait=lambda: self.check_alive(name))

    def answers(self, number: int) -> bool:
        """Whether a replica takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[number])) == 0

    def client(self) -> DispatcherClient:
        """A user's client, through the proxy."""
        return DispatcherClient(self.proxy_url, (self.state_of(0) / "user.token").read_text().strip())


@contextlib.contextmanager
def replicated(folder: Path, server: PostgresServer, **chosen: float) -> Iterator[tuple[Replicated, Proxy]]:
    """Replicas, the proxy and one edge; ended with all that they have started."""
    services = Replicated(folder, **chosen)  # type: ignore[arg-type]
    services.environment["HPCPANDA_DISPATCHER_DATABASE"] = server.create_database()
    services.state.mkdir()
    with Proxy(services.ports) as proxy:
        services.proxy_url = proxy.url
        (folder / "port").write_text(str(proxy.port))
        try:
            for number in range(REPLICAS):
                services.start_replica(number)
            for number in range(REPLICAS):
                services.wait_for_replica(number)
            services.start_edge()
            yield services, proxy
        finally:
            services.stop()


class Killer:
    """Kills one replica after the other with SIGKILL, every few seconds, and starts it again; the other one stays."""

    def __init__(self, services: Replicated, *, every_s: tuple[float, float], seed: int = 1) -> None:
        self._services = services
        self._every_s = every_s
        self._dice = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="killer")
        self.kills = 0
        self.trouble: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.trouble is not None:
            raise self.trouble

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._dice.uniform(*self._every_s)):
                self._kill_one(self.kills % REPLICAS)
        except Exception as problem:
            self.trouble = problem

    def _kill_one(self, number: int) -> None:
        self._services.wait_for_replica((number + 1) % REPLICAS)
        self._services.kill(f"replica{number}")
        self.kills += 1
        time.sleep(self._dice.uniform(0.0, 0.5))
        self._services.start_replica(number)


def away(services: Replicated) -> int:
    """How often the edge has noted that nobody answered."""
    return services.log("edge").count("dispatcher-away")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
