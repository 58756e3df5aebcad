"""Payloads that fail, each in its own way: what becomes of the task, and what its user is told."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from support.chain import Ran, chain_task, run_command, run_to_end, run_to_output, serial_digest
from support.services import Services

import hpcpanda.client.cli
from hpcpanda.domain.intervals import IntervalSet
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.task import Resources
from hpcpanda.domain.task_views import FailedEventPage


@pytest.fixture
def told(services: Services, monkeypatch: pytest.MonkeyPatch):
    """``told("task", "explain", ...)``: what the command line says."""
    monkeypatch.setenv("HPCPANDA_STATE", str(services.state))
    monkeypatch.setenv("COLUMNS", "300")

    def tell(*words: object) -> Ran:
        return run_command(hpcpanda.client.cli.main, *map(str, words))

    return tell


def failures(services: Services, task_id: int) -> FailedEventPage:
    with services.client() as client:
        return client.failures(task_id)


def test_a_payload_that_does_not_import_fails_the_task(services: Services, told) -> None:
    """The task fails at once; its message names the site, the missing library, and the line that wants it."""
    task = run_to_end(services, chain_task("generate", module="chain_broken_import"))
    assert task.state is TaskState.FAILED
    for words in ("laptop", "No module named 'a_library_that_nobody_has'", "chain_broken_import.py:5"):
        assert words in (task.message or "")
    shown = told("task", "watch", task.task_id)
    assert shown.code == 3
    assert "a_library_that_nobody_has" in shown.err
    assert "a_library_that_nobody_has" in told("task", "explain", task.task_id).out


def test_a_function_that_is_not_there_fails_the_task(services: Services) -> None:
    """The message names the module's file and the function that it does not have."""
    task = run_to_end(services, chain_task("genrate"))
    assert task.state is TaskState.FAILED
    assert "chain_payload.py has no 'genrate'" in (task.message or "")


@pytest.mark.parametrize(
    ("setup", "words"),
    [
        ("exits", ("set-up chain_payload:exits failed: SystemExit: 4", "licence server does not answer")),
        ("dies", ("set-up of the payload failed", "SIGSEGV")),
    ],
)
def test_a_set_up_that_leaves_is_told(services: Services, setup: str, words: tuple[str, ...]) -> None:
    """A set-up that exits, or dies, fails the task at once, and the message says how and what it printed last."""
    task = run_to_end(services, chain_task("generate", setup=setup))
    assert task.state is TaskState.FAILED
    for word in words:
        assert word in (task.message or "")


@pytest.mark.parametrize("call", ["poisonous", "deadly"])
def test_one_bad_event_costs_one_event(services: Services, tmp_path: Path, told, call: str) -> None:
    """An event that raises, or kills its worker, is alone in the list of failures, and all its neighbours
    are merged."""
    spec = chain_task(call, events=150, settings={"bad": 77}, max_failed=1)
    finished = run_to_output(services, spec, state=TaskState.FINISHED)
    neighbours = IntervalSet.span(0, 77) | IntervalSet.span(78, 150)
    assert finished.output.events == neighbours == finished.manifest.events
    assert finished.manifest.failed == IntervalSet.span(77, 78)
    with h5py.File(finished.output.path) as file:
        assert file["event"][:].tolist() == [*range(77), *range(78, 150)]
    (event,) = failures(services, finished.task.task_id).events
    assert (event.event, event.attempts) == (77, 2)
    assert ("cannot digest event 77" if call == "poisonous" else "SIGSEGV") in event.error
    assert told("task", "failures", finished.task.task_id, "-o", "quiet").out == "77\n"
    assert told("task", "watch", finished.task.task_id).code == 0
    explained = told("task", "explain", finished.task.task_id).out
    assert "It is finished: 1 of 150 events failed, as the task allows." in explained
    assert "the first is event 77" in explained


def test_without_leave_to_lose_one_bad_event_fails_the_task(services: Services, told) -> None:
    """The message names the event and its error, nothing is merged, and nothing is left on the disk."""
    task = run_to_end(services, chain_task("poisonous", events=100, settings={"bad": 42}))
    assert task.state is TaskState.FAILED
    assert "1 event failed and the task may lose none; the first is event 42" in (task.message or "")
    assert "cannot digest event 42" in (task.message or "")
    assert told("task", "outputs", task.task_id, "-o", "quiet").out == ""
    assert told("task", "failures", task.task_id, "-o", "quiet").out == "42\n"


def test_an_event_that_hangs_is_ended_in_time(services: Services) -> None:
    """Beyond ``range_timeout_s`` the worker is ended and its event set aside with that reason."""
    spec = chain_task(
        "hanging", events=8, max_range=1, settings={"bad": 5}, max_failed=1, attempts=1,
        resources=Resources(range_timeout_s=0.6),
    )  # fmt: skip
    finished = run_to_output(services, spec, state=TaskState.FINISHED)
    assert finished.output.events == IntervalSet.span(0, 5) | IntervalSet.span(6, 8)
    (event,) = failures(services, finished.task.task_id).events
    assert event.event == 5
    assert "took longer than 0.6 s" in event.error


def test_nan_and_infinity_are_kept_bit_by_bit(services: Services, tmp_path: Path) -> None:
    """Values that are not numbers are data like any other."""
    spec = chain_task("not_a_number", events=99)
    finished = run_to_output(services, spec)
    assert finished.output.digest == serial_digest(spec, tmp_path / "serial")
    with h5py.File(finished.output.path) as file:
        bits = file["value"][:].view("u8")
    assert set(np.unique(bits)) == {0x7FF8000000000000, 0x7FF0000000000000, 0x7FF800000000BEEF}


def test_columns_that_change_their_type_fail_the_task(services: Services) -> None:
    """The message names the column, both types, and an event."""
    spec = chain_task("changing_dtype", events=40, settings={"bad": 20}, max_range=1)
    task = run_to_end(services, spec)
    assert task.state is TaskState.FAILED
    for words in ("value", "<f4", "<f8", "same columns", "event "):
        assert words in (task.message or "")


def test_columns_of_unequal_length_fail_the_task(services: Services) -> None:
    """The message names the columns and their lengths."""
    task = run_to_end(services, chain_task("unequal_lengths", events=10))
    assert task.state is TaskState.FAILED
    for words in ("other", "event "):
        assert words in (task.message or "")
