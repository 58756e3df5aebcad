"""The checker finds payloads whose events depend on the cut, and tells cost and dangers."""

from __future__ import annotations

import numpy as np
import pytest

from hpcpanda.domain.errors import InvalidValue, PayloadFailed
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.outputs import Output, OutputFormat
from hpcpanda.domain.task import Resources
from hpcpanda.payload.check import check_payload

from .conftest import SpecOf

HDF5 = Output(file="o.hdf5")
ZIP = Output(file="o.zip", format=OutputFormat.ZIP)
HEAD = "import numpy as np\nfrom hpcpanda.payload import Items, philox\n"


def test_independent_payload_passes(callable_spec: SpecOf) -> None:
    """Events seeded by their number are the same in every cut; costs, sizes and memory are told."""
    spec = callable_spec(
        HEAD + "def call(w):\n"
        "    rng = [philox(w.seed, e) for e in w.events]\n"
        "    n = np.array([r.integers(0, 5) for r in rng])\n"
        "    x = np.concatenate([r.random(k) for r, k in zip(rng, n)])\n"
        "    return {'n': n, 'x': Items(x, counts='n')}\n",
        output=HDF5,
    )
    report = check_payload(spec, events=60)
    assert report.ok
    assert report.warnings == ()
    assert [(c.name, c.ranges) for c in report.cuts] == [
        ("ranges of 1", 60),
        ("one range", 1),
        ("ranges of 7, in reverse order", 9),
        ("ranges of 25, in random order", 3),
    ]
    assert all(c.event_seconds > 0 for c in report.cuts)
    assert report.worker_rss_mb > (report.shared_mb or 0) > 0
    assert report.programs_rss_mb == 0
    assert 8 < report.bytes_per_event < 60


def test_random_numbers_that_run_on_are_found(callable_spec: SpecOf) -> None:
    """A generator seeded once a range gives a range's second event another value: event 1, column x."""
    spec = callable_spec(
        HEAD + "def call(w):\n"
        "    rng = philox(w.seed, w.first)\n"
        "    return {'event': np.array(w.events), 'x': rng.random(len(w))}\n",
        output=HDF5,
    )
    report = check_payload(spec, events=40)
    assert not report.ok
    assert report.difference is not None
    assert (report.difference.event, report.difference.column) == (1, "x")
    assert report.difference.cuts[0] == "ranges of 1"


@pytest.mark.parametrize("column", ["n", "x"])
def test_one_wrong_event_is_named(callable_spec: SpecOf, column: str) -> None:
    """The one event that knows its range is named, in a column of events and in a jagged one."""
    wrong = {"n": "n[23 - w.first] += 1", "x": "x[2 * (23 - w.first) + 1] = len(w)"}[column]
    spec = callable_spec(
        HEAD + "def call(w):\n"
        "    n, x = np.full(len(w), 2), np.zeros(2 * len(w))\n"
        f"    if 23 in w.events and len(w) > 1: {wrong}\n"
        "    return {'n': n, 'x': Items(np.resize(x, n.sum()), counts='n')}\n",
        output=HDF5,
    )
    difference = check_payload(spec, events=40).difference
    assert difference is not None
    assert (difference.event, difference.column) == (23, column)


def test_bytes_are_compared_too(command_spec: SpecOf) -> None:
    """For plain bytes the event that wrote the first differing byte is named."""
    script = "for i in $(seq {first} $(({last} - 1))); do echo $i; done > {output}; [ {count} = 7 ] && echo x >> {output}; true"
    difference = check_payload(command_spec("sh", "-c", script), events=20).difference
    assert difference is not None
    assert (difference.event, difference.column) == (7, None)


def test_order_of_ranges_is_found_to_matter(callable_spec: SpecOf) -> None:
    """A payload that counts its calls depends on the order of ranges, which zip output shows as well."""
    spec = callable_spec(
        "k = 0\ndef call(w):\n    global k\n    k += 1\n    return str(k).encode()\n", output=ZIP
    )
    report = check_payload(spec, events=70)
    assert [c.name for c in report.cuts] == ["ranges of 7", "ranges of 7, in reverse order"]
    assert report.difference is not None
    assert report.difference.event % 7 == 0


def test_changing_columns_are_a_difference(callable_spec: SpecOf) -> None:
    """A column whose type depends on the events of the range is named with the first such range."""
    spec = callable_spec(
        HEAD + "def call(w): return {'x': [0.5 if e == 11 else e for e in w.events]}\n", output=HDF5
    )
    difference = check_payload(spec, events=20).difference
    assert difference is not None
    assert difference.event == 11
    assert "column 'x' is <i8 in one range and <f8 in another" in difference.detail


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('no')", "ValueError: no"),
        ("return 3", "the payload returned int"),
        ("return {'x': [1, 2]}", "has 2 rows"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9 (SIGKILL)"),
        ("import os; os._exit(3)", "exit status 3"),
        ("import signal; signal.pause()", "took longer than 0.2 s"),
    ],
)
def test_failures_name_their_range(callable_spec: SpecOf, body: str, told: str) -> None:
    """A range that raises, returns rubbish, crashes or hangs is listed; it is never a difference."""
    source = HEAD + f"def call(w):\n    if 5 in w.events: {body}\n    return {{'x': np.array(w.events)}}\n"
    spec = callable_spec(source, output=HDF5, resources=Resources(range_timeout_s=0.2))
    report = check_payload(spec, events=6)
    assert not report.ok
    assert report.difference is None
    failures = {(f.cut, f.first, f.last): f.error for f in report.failures}
    assert told in failures["ranges of 1", 5, 6]
    assert ("one range", 0, 6) in failures


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("raise SystemExit(1)", "SystemExit"),
        ("def setup(s):\n    import os; os._exit(9)\ndef call(w): pass", "exit status 9"),
        (
            "def setup(s):\n    import signal; signal.pause()\ndef call(w): pass",
            "set-up took longer than 0.2 s",
        ),
    ],
)
def test_payload_that_cannot_be_prepared_is_told(callable_spec: SpecOf, source: str, told: str) -> None:
    """A set-up that fails, ends its process or hangs is an error that says so."""
    spec = callable_spec(source, setup="setup" in source, resources=Resources(setup_timeout_s=0.2))
    with pytest.raises(PayloadFailed, match=told):
        check_payload(spec, events=3)


def test_dangers_are_warned_of(callable_spec: SpecOf) -> None:
    """NaN, prints, threads and files left open by the set-up, and too much memory are told."""
    spec = callable_spec(
        HEAD + "import threading\n"
        "def setup(s):\n"
        "    threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "    return open(__file__)\n"
        "def call(w):\n"
        "    print('hello from', w.first)\n"
        "    return {'x': np.array([np.nan if e == 4 else 0.0 for e in w.events])}\n",
        setup=True,
        output=HDF5,
        resources=Resources(memory_mb=16),
    )
    report = check_payload(spec, events=6)
    assert report.ok
    text = "\n".join(report.warnings)
    assert "column 'x' has NaN, first in event 4" in text
    assert "writes on stdout" in text
    assert "beginning 'hello from" in text
    assert "start 1 thread;" in text
    assert "forked workers share its position" in text
    assert "resources.memory_mb = 16" in text


def test_set_up_runs_once_and_its_memory_is_shared(callable_spec: SpecOf) -> None:
    """All workers of all cuts see the state of one set-up, and share its memory."""
    spec = callable_spec(
        HEAD + "import os\ndef setup(s): return os.getpid(), np.ones(8_000_000)\n"
        "def call(w): return {'pid': np.full(len(w), w.state[0])}\n",
        setup=True,
        output=HDF5,
    )
    report = check_payload(spec, events=30, workers=3)
    assert report.ok
    assert report.shared_mb is not None
    assert report.shared_mb > 61


def test_ranges_stay_inside_input_files(callable_spec: SpecOf) -> None:
    """No range the checker makes reaches across the end of an input file, and event numbers run on."""
    inputs = Inputs(
        format=InputFormat.LHE, files=(InputFile(path="/a", events=10), InputFile(path="/b", events=9))
    )
    spec = callable_spec(
        HEAD + "def call(w):\n    (part,) = w.inputs\n    return {'entry': np.array(part.entries)}\n",
        output=HDF5,
        inputs=inputs,
    )
    report = check_payload(spec, events=1000)
    assert report.ok
    assert report.events == 19
    assert {c.name: c.ranges for c in report.cuts}["one range"] == 2


def test_columns_without_rows_are_equal(callable_spec: SpecOf) -> None:
    """A jagged column that no event fills, of single numbers or of vectors, is no difference."""
    spec = callable_spec(
        HEAD + "def call(w):\n"
        "    none = {'x': Items(np.zeros(0), counts='n'), 'p': Items(np.zeros((0, 3)), counts='n')}\n"
        "    return {'n': np.zeros(len(w), int), **none}\n",
        output=HDF5,
    )
    report = check_payload(spec, events=9)
    assert report.ok
    assert report.warnings == ()


def test_counts_must_be_positive(callable_spec: SpecOf) -> None:
    """No events or no workers is refused."""
    spec = callable_spec("def call(w): return b''")
    for arguments in ({"events": 0}, {"events": 1, "workers": 0}):
        with pytest.raises(InvalidValue, match="at least 1"):
            check_payload(spec, **arguments)


def test_nan_equals_itself_and_zero_has_a_sign(callable_spec: SpecOf) -> None:
    """Content is compared bit by bit: a NaN is no difference, -0.0 for 0.0 is one."""
    source = HEAD + "def call(w): return {{'x': np.full(len(w), {0})}}\n"
    assert check_payload(callable_spec(source.format("np.nan"), output=HDF5), events=8).ok
    signed = callable_spec(source.format("0.0 if len(w) > 1 else -0.0"), output=HDF5)
    difference = check_payload(signed, events=8).difference
    assert difference is not None
    assert difference.detail == f"{np.float64(-0.0)!s} in one cut, 0.0 in the other"
