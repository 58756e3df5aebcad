"""The process form: the line protocol, kept and broken in every way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.domain.payloads import ProcessPayload
from hpcpanda.payload.forms import prepare

from .conftest import SpecOf, spec_of

GOOD = """
n = 0
while (q := ask()) and q[0] != 'bye':
    n += 1
    write(q[4], f'{os.getpid()} {n} {q[1]} {q[2]} {q[3]}')
    reply('done\\n')
"""

BREAKS_ON_3 = """
while (q := ask()) and q[0] != 'bye':
    if q[1] == '3':
        {0}
    write(q[4], 'fine')
    reply('done\\n')
"""


def test_one_process_serves_all_ranges(process_spec: SpecOf, tmp_path: Path) -> None:
    """Ranges go to the same process one after the other, with the task's seed."""
    runner = prepare(process_spec(GOOD, seed=77)).runner(tmp_path)
    first, second = (runner.run(*r).split() for r in ((0, 5), (5, 9)))
    runner.close()
    assert first[0] == second[0]
    assert [first[1:], second[1:]] == [[b"1", b"0", b"5", b"77"], [b"2", b"5", b"9", b"77"]]


def test_inputs_are_announced_before_the_run(process_spec: SpecOf, tmp_path: Path) -> None:
    """Each covered file is a line of its own, path last; then comes the run line."""
    files = (InputFile(path="/a", events=4), InputFile(path="/b c", events=4))
    source = (
        "lines = [requests.readline() for _ in range(3)]\n"
        "write(lines[-1].rstrip('\\n').split(' ', 4)[4], ''.join(lines[:2]))\nreply('done\\n')\n"
    )
    spec = process_spec(source, inputs=Inputs(format=InputFormat.LHE, files=files))
    runner = prepare(spec).runner(tmp_path)
    assert runner.run(2, 6) == b"input 2 4 /a\ninput 0 2 /b c\n"
    runner.close()


def test_stdout_is_not_the_reply_channel(
    process_spec: SpecOf, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A process that floods stdout with words of the protocol is served like any other."""
    source = GOOD.replace("n += 1", "n += 1; print('done\\nfailed x\\n' * 100_000)")
    runner = prepare(process_spec(source)).runner(tmp_path)
    assert runner.run(0, 5).split()[1:] == [b"1", b"0", b"5", b"1"]
    runner.close()
    assert len(capfd.readouterr().out) > 1_000_000


def test_failed_reply_keeps_the_process(process_spec: SpecOf, tmp_path: Path) -> None:
    """A range the process says has failed fails with its text; the process goes on."""
    source = (
        "k = 0\nwhile q := ask():\n    k += 1\n"
        "    if q[1] == '3': reply('failed no field map\\n'); continue\n"
        "    write(q[4], str(k)); reply('done\\n')\n"
    )
    runner = prepare(process_spec(source)).runner(tmp_path)
    with pytest.raises(PayloadFailed, match=r"on events \[3, 4\): failed no field map"):
        runner.run(3, 4)
    assert runner.run(4, 5) == b"2"
    runner.close()


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("sys.exit(4)", "exit status 4"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by signal 11 (SIGSEGV)"),
        ("reply('hello\\n')\n        ask()", "replied b'hello\\n' instead of"),
        ("reply('done')\n        sys.exit(0)", "exit status 0"),
        ("reply('done \\n')\n        ask()", "instead of 'done'"),
        ("write(q[4], 'x')\n        reply('done\\ndone\\n')", "more than one line"),
        ("reply('failed ' + 'x' * 10_000 + '\\n')", "more than 4096 bytes"),
        ("os.write(out, bytes(range(128, 256)) * 100)", "more than 4096 bytes"),
        ("reply('\\n')\n        ask()", "instead of"),
        ("os.close(out)\n        ask()", "closed its reply descriptor"),
        ("if os.fork(): os._exit(5)\n        ask(); os._exit(0)", "exit status 5"),
        ("reply('done\\n')\n        ask()", "wrote no output file"),
        ("os.mkdir(q[4])\n        reply('done\\n')", "not a regular file"),
    ],
)
def test_broken_process_is_started_anew(process_spec: SpecOf, tmp_path: Path, act: str, told: str) -> None:
    """Whatever a process does instead of replying, the failure names it and the next range is served."""
    runner = prepare(process_spec(BREAKS_ON_3.format(act))).runner(tmp_path)
    assert runner.run(0, 1) == b"fine"
    with pytest.raises(PayloadFailed) as failure:
        runner.run(3, 4)
    assert told in str(failure.value)
    assert len(str(failure.value)) < 2500
    assert runner.run(4, 5) == b"fine"
    runner.close()


def test_process_that_died_between_ranges_harms_none(process_spec: SpecOf, tmp_path: Path) -> None:
    """A process that ends after a reply is replaced, and the next range is served."""
    source = "q = ask()\nwrite(q[4], str(os.getpid()))\nreply('done\\n')\n"
    runner = prepare(process_spec(source)).runner(tmp_path)
    pid = int(runner.run(0, 1))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert int(runner.run(1, 2)) != pid
    runner.close()


def test_second_reply_is_not_taken_for_the_next_range(process_spec: SpecOf, tmp_path: Path) -> None:
    """A reply that comes when none is due fails the next range instead of being taken for its own."""
    source = (
        "q = ask()\nwrite(q[4], 'fine')\nreply('done\\n')\n"
        "while os.path.exists(q[4]): pass\n"
        "reply('done\\n')\nos.write(1, b'!')\nask()\n"
    )
    printed, its_stdout = os.pipe()
    saved = os.dup(1)
    os.dup2(its_stdout, 1)
    try:
        runner = prepare(process_spec(source)).runner(tmp_path)
        assert runner.run(0, 1) == b"fine"
        assert os.read(printed, 1) == b"!"
        with pytest.raises(PayloadFailed, match="replied without being asked: b'done"):
            runner.run(1, 2)
        assert runner.run(1, 2) == b"fine"
        runner.close()
    finally:
        os.dup2(saved, 1)
        for descriptor in (printed, its_stdout, saved):
            os.close(descriptor)


def test_seed_is_filled_into_the_command(tmp_path: Path) -> None:
    """``{seed}`` in a word of the command is the task's seed."""
    code = (
        "import os, sys; q = os.fdopen(int(os.environ['HPCPANDA_IN'])).readline().split();"
        "open(q[4], 'w').write(sys.argv[1]); os.write(int(os.environ['HPCPANDA_OUT']), b'done\\n')"
    )
    spec = spec_of(ProcessPayload(command=(sys.executable, "-c", code, "--seed={seed}")), seed=12)
    runner = prepare(spec).runner(tmp_path)
    assert runner.run(0, 1) == b"--seed=12"
    runner.close()


def test_close_without_a_range_starts_nothing(process_spec: SpecOf, tmp_path: Path) -> None:
    """A runner that was never used has nothing to end."""
    prepare(process_spec("open('started', 'w')")).runner(tmp_path).close()
    assert not (tmp_path / "started").exists()


def test_process_that_ignores_bye_is_killed(
    process_spec: SpecOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that does not end after ``bye`` is killed when its time is over."""
    monkeypatch.setattr("hpcpanda.payload.forms.process.BYE_SECONDS", 0.05)
    source = "q = ask()\nwrite(q[4], str(os.getpid()))\nreply('done\\n')\nwhile True: signal.pause()\n"
    runner = prepare(process_spec(source)).runner(tmp_path)
    pid = int(runner.run(0, 1))
    runner.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_descriptors_are_given_back(process_spec: SpecOf, tmp_path: Path) -> None:
    """Replacing and closing processes leaves no descriptor open."""
    runner = prepare(process_spec(BREAKS_ON_3.format("sys.exit(1)"))).runner(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for first in (0, 3, 4, 3):
        try:
            runner.run(first, first + 1)
        except PayloadFailed:
            continue
    runner.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
