"""The wall clock of a machine is corrected by a lot while work goes on."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.chain import SUPPORT, chain_task, checked_manifest, done, serial_digest
from support.services import Services, wait_for_task, wait_until

from hpcpanda.dispatcher.clock import SteadyClock
from hpcpanda.domain.states import TaskState

DAY = 86_400


@pytest.fixture
def stepped(tmp_path: Path) -> Iterator[tuple[Services, Path]]:
    """Services whose wall clocks are ahead of the machine's by the seconds in a file."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: the clock of other processes cannot be stepped")
    library, step = tmp_path / "clock.so", tmp_path / "step"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SUPPORT / "chain_clock.c"], check=True)
    step.write_text("0\n")
    services = Services(tmp_path, environment={"LD_PRELOAD": str(library), "CHAIN_CLOCK": str(step)})
    yield services, step
    services.stop()


def test_all_clocks_step_in_the_middle(stepped: tuple[Services, Path], tmp_path: Path) -> None:
    """Dispatcher, edge and allocation see the clock step a day ahead, then two days back: the task ends with
    the content of a serial run."""
    services, step = stepped
    services.start_dispatcher()
    services.start_edge()
    spec = chain_task("generate", events=300, settings={"event_s": 0.02})
    with services.client() as client:
        task_id = client.submit(spec).task_id
        for seconds, events in ((DAY, 20), (-DAY, 120)):
            wait_until(lambda: done(client, task_id) > events, "commits")  # noqa: B023
            new = step.with_name("new")
            new.write_text(f"{seconds}\n")
            new.replace(step)
        task = wait_for_task(client, task_id, seconds=60)
        assert task.state is TaskState.DONE
        (file,) = client.outputs(task_id).files
    checked_manifest(file, task)
    assert file.digest == serial_digest(spec, tmp_path / "serial")
    assert len({line[:10] for line in services.log("edge").splitlines()}) >= 3, "the clock did not step"


def test_the_dispatchers_clock_never_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases neither end nor last longer when the machine's clock is corrected."""
    clock = SteadyClock()
    before = clock()
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + DAY)
    assert 0 <= clock() - before < 10
    monkeypatch.setattr(time, "time", lambda: wall() - DAY)
    assert 0 <= clock() - before < 10
