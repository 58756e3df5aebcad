"""A real dispatcher, in a process of its own, for tests."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcpanda.client.async_sdk import AsyncDispatcherClient
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.dispatcher.run import create_token, ensure_token
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.domain.exchange import EdgeRegistration
from hpcpanda.domain.outputs import Output
from hpcpanda.domain.payloads import CallablePayload
from hpcpanda.domain.task import LossPolicy, Resources, TaskSpec

_SERVE = """
import sys
from hpcpanda.dispatcher.run import serve
from hpcpanda.dispatcher.settings import DispatcherSettings
serve(DispatcherSettings.model_validate_json(sys.argv[1]))
"""


@dataclass(frozen=True, kw_only=True)
class RunningDispatcher:
    """A dispatcher that answers at ``url``."""

    settings: DispatcherSettings
    process: subprocess.Popen[str]
    url: str

    @property
    def user_token(self) -> str:
        return self.settings.user_token_file.read_text().strip()

    def edge_token(self, name: str = "local") -> str:
        return ensure_token(self.settings, "edge", name).read_text().strip()

    def user(self) -> DispatcherClient:
        return DispatcherClient(self.url, self.user_token)

    def other_user(self, name: str) -> DispatcherClient:
        return DispatcherClient(self.url, create_token(self.settings, "user", name))

    def async_user(self) -> AsyncDispatcherClient:
        return AsyncDispatcherClient(self.url, self.user_token)

    def edge(self, name: str = "local") -> DispatcherClient:
        """A client with the edge's token, registered as instance ``<name>-1``."""
        client = DispatcherClient(self.url, self.edge_token(name))
        client.register_edge(name, EdgeRegistration(instance=f"{name}-1", cores=8))
        return client

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait()


def start_dispatcher(state: Path, **settings: object) -> RunningDispatcher:
    """Start a dispatcher over ``state`` on a free loopback port, and wait until it answers."""
    chosen = DispatcherSettings(state=state, **settings)
    with (state.parent / f"{state.name}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, chosen.model_dump_json()],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("HPCPANDA_")},
        )
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url, f"the dispatcher did not start; see {log.name}"
    return RunningDispatcher(settings=chosen, process=process, url=url)


@contextlib.contextmanager
def running_dispatcher(state: Path, **settings: object) -> Iterator[RunningDispatcher]:
    """A dispatcher over ``state``, stopped at the end."""
    dispatcher = start_dispatcher(state, **settings)
    try:
        yield dispatcher
    finally:
        dispatcher.process.terminate()
        try:
            dispatcher.process.wait(20)
        except subprocess.TimeoutExpired:
            dispatcher.kill()
        assert dispatcher.process.stdout is not None
        dispatcher.process.stdout.close()


def spec(
    events: int = 1000,
    *,
    name: str = "sand",
    priority: int = 0,
    max_failed: int = 0,
    event_seconds: float | None = None,
) -> TaskSpec:
    """A task of ``events`` events."""
    return TaskSpec(
        name=name,
        payload=CallablePayload(call="module:function"),
        output=Output(file="out.h5"),
        events=events,
        priority=priority,
        loss=LossPolicy(max_failed_events=max_failed),
        resources=Resources(event_seconds=event_seconds),
    )
