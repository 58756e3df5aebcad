"""A dispatcher and an edge as a user starts them, over folders of their own, and a view of their processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.domain.errors import Unavailable
from hpcpanda.domain.task_views import Task
from tests.support.allocation import NAMED
from tests.support.processes import living

BIN = Path(sys.executable).parent

SITE = """
name = "{name}"
spool = "{spool}"
[nodes]
count = {nodes}
cores = {cores}
memory_mb = 4000
oversubscribe = true
[scheduler]
executor = "local"
poll_seconds = 0.2
[allocation]
walltime_s = {walltime_s}
margin_s = 1
grace_s = 2
lookahead_s = {lookahead_s}
linger_s = {linger_s}
sync_s = 0.2
"""


@dataclass(slots=True)
class Services:
    """Processes over one temporary folder; found again by an environment variable that they all inherit."""

    folder: Path
    nodes: int = 1
    cores: int = 2
    walltime_s: float = 600.0
    lookahead_s: float = 5.0
    linger_s: float = 1.0
    environment: dict[str, str] = field(default_factory=dict)
    """Variables added to the environment of everything that is started."""
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """Value of HPCPANDA_STATE, which marks every process of these services."""
        return self.folder / "state"

    @property
    def spool(self) -> Path:
        """The edge's spool folder."""
        return self.folder / "spool"

    @property
    def site_file(self) -> Path:
        """The site file, written when first asked for."""
        return self.site_of("laptop", self.spool)

    def site_of(self, name: str, spool: Path) -> Path:
        """The file of a site of any name over any spool, written when first asked for."""
        path = self.folder / ("site.toml" if spool == self.spool else f"{name}-{spool.name}.toml")
        if not path.exists():
            path.write_text(
                SITE.format(
                    name=name,
                    spool=spool,
                    nodes=self.nodes,
                    cores=self.cores,
                    walltime_s=self.walltime_s,
                    lookahead_s=self.lookahead_s,
                    linger_s=self.linger_s,
                )
            )
        return path

    def start_dispatcher(self) -> None:
        """Start it and wait until it answers; at a restart on the same port."""
        url_file = self.state / "dispatcher" / "url"
        port = "0"
        if (known := self.folder / "port").exists():
            port = known.read_text()
        url_file.unlink(missing_ok=True)
        self._start("dispatcher", "hpcpanda", "dispatcher", "run", "--port", port)
        wait_until(url_file.exists, "the dispatcher", on_wait=lambda: self.check_alive("dispatcher"))
        known.write_text(url_file.read_text().strip().rpartition(":")[2])

    def start_edge(
        self,
        key: str = "edge",
        *,
        name: str = "laptop",
        spool: Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Start it; it connects when the dispatcher answers. ``key`` names its process and its log."""
        port = (self.folder / "port").read_text()
        token = self.state / "dispatcher" / "edges" / f"{name}.token"
        if not token.exists():
            token.write_text(self.run("hpcpanda", "dispatcher", "token", "edge", name).stdout)
        self._start(
            key, "hpcpanda-edge", "run",
            "--site", str(self.site_of(name, spool or self.spool)),
            "--dispatcher", f"http://127.0.0.1:{port}",
            "--token-file", str(token),
            *options,
        )  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the product to its end, as a user of these services."""
        return subprocess.run(
            [BIN / words[0], *words[1:]],
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | self.environment | {"HPCPANDA_STATE": str(self.state), "COLUMNS": "300"},
            check=False,
        )

    def log(self, key: str) -> str:
        """What a service has written so far."""
        return (self.folder / f"{key}.log").read_text(errors="replace")

    def kill(self, key: str) -> None:
        """SIGKILL for a service, and only for it."""
        self.started[key].kill()
        self.started.pop(key).wait()

    def client(self) -> DispatcherClient:
        """A user's client."""
        folder = self.state / "dispatcher"
        return DispatcherClient(
            (folder / "url").read_text().strip(), (folder / "user.token").read_text().strip()
        )

    def check_alive(self, name: str) -> None:
        """Fail with the log's end when a service has died by itself."""
        if self.started[name].poll() is not None:
            log = (self.folder / f"{name}.log").read_text(errors="replace")
            raise AssertionError(f"{name} ended with {self.started[name].returncode}:\n{log[-4000:]}")

    def processes(self) -> list[tuple[str, psutil.Process]]:
        """Every living process of these services and its role."""
        mark = str(self.state)
        return living(lambda p: (_role(p), p) if p.environ().get("HPCPANDA_STATE") == mark else None)

    def stop(self) -> None:
        """End the services in order, then whatever is left of them."""
        for process in self.started.values():
            process.terminate()
        for process in self.started.values():
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for _, process in self.processes():
            process.kill()

    def _start(self, name: str, *words: str) -> None:
        environment = os.environ | self.environment | {"HPCPANDA_STATE": str(self.state)}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.started[name] = subprocess.Popen(
                [BIN / words[0], *words[1:]],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    text = " ".join(words)
    if (named := NAMED.get(process.name())) is not None:
        return named
    if "hpcpanda.allocation.work_pack" in text and "python" in Path(words[0]).name:
        return "rank"
    for mark, role in (
        ("hydra_pmi_proxy", "proxy"),
        ("mpiexec", "mpiexec"),
        ("hpcpanda.allocation.head", "head"),
        ("hpcpanda.allocation.merge_pack", "merge"),
        ("hpcpanda-edge", "edge"),
        ("hpcpanda", "dispatcher"),
    ):
        if mark in text:
            return role
    return "other"


def wait_until(
    condition: Callable[[], bool],
    what: str,
    *,
    seconds: float = 90.0,
    on_wait: Callable[[], None] | None = None,
) -> None:
    """Wait for a condition of another process that sends no event."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        if on_wait is not None:
            on_wait()
        time.sleep(0.05)


def wait_for_task(client: DispatcherClient, task_id: int, *, seconds: float = 120.0) -> Task:
    """The task in its final state."""
    last: list[Task] = []

    def final() -> bool:
        try:
            last[:] = [client.task(task_id)]
        except Unavailable:
            return False
        return last[0].state.final

    wait_until(final, f"the end of task {task_id} ({last and last[0].state})", seconds=seconds)
    return last[0]


def kill(process: psutil.Process) -> bool:
    """SIGKILL; whether it was still there."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True
