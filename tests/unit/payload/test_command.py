"""The command form: words filled in, output collected, bad programs told apart."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from hpcpanda.domain.errors import PayloadFailed
from hpcpanda.domain.inputs import InputFile, InputFormat, Inputs
from hpcpanda.payload.forms import prepare

from .conftest import SpecOf

FILES = Inputs(
    format=InputFormat.LHE, files=(InputFile(path="/a", events=4), InputFile(path="/b c", events=4))
)


def test_words_are_filled_in(command_spec: SpecOf, tmp_path: Path) -> None:
    """Each name is replaced, several times in a word too; other braces are left alone."""
    script = 'o=$1; shift; printf "%s|" "$@" > $o'
    spec = command_spec(
        "sh",
        "-c",
        script,
        "sh",
        "{output}",
        "{first}-{last}",
        "{count}",
        "{seed}",
        "{x} {{first}} $0",
        seed=8,
    )
    assert prepare(spec).runner(tmp_path).run(3, 10) == b"3-10|7|8|{x} {3} $0|"


def test_words_are_not_filled_in_twice(command_spec: SpecOf, tmp_path: Path) -> None:
    """A path that looks like a placeholder is passed on as it is."""
    folder = tmp_path / "{seed}"
    folder.mkdir()
    spec = command_spec("sh", "-c", 'echo "$1" > "$1"', "sh", "{output}")
    assert prepare(spec).runner(folder).run(0, 1) == f"{folder}/output\n".encode()


def test_words_about_the_input_are_repeated_for_each_file(command_spec: SpecOf, tmp_path: Path) -> None:
    """A range in one file names that file; one across two files repeats the word, spaces intact."""
    script = 'o=$1; shift; printf "%s|" "$@" > "$o"'
    spec = command_spec(
        "sh", "-c", script, "sh", "{output}", "--in={input}:{input_first}:{input_last}", inputs=FILES
    )
    runner = prepare(spec).runner(tmp_path)
    assert runner.run(1, 3) == b"--in=/a:1:3|"
    assert runner.run(2, 6) == b"--in=/a:2:4|--in=/b c:0:2|"


def test_environment_is_added(command_spec: SpecOf, tmp_path: Path) -> None:
    """The payload's variables are added to the worker's."""
    spec = command_spec("sh", "-c", 'echo "$A $HOME" > {output}', environment={"A": "b"})
    assert prepare(spec).runner(tmp_path).run(0, 1) == f"b {os.environ['HOME']}\n".encode()


def test_stdin_is_empty(command_spec: SpecOf, tmp_path: Path) -> None:
    """A program that reads stdin finds its end at once."""
    spec = command_spec("sh", "-c", "cat > {output}; echo end >> {output}")
    assert prepare(spec).runner(tmp_path).run(0, 1) == b"end\n"


def test_output_may_be_empty_and_is_removed(command_spec: SpecOf, tmp_path: Path) -> None:
    """An empty file is a result; nothing stays in the work folder."""
    assert prepare(command_spec("touch", "{output}")).runner(tmp_path).run(0, 1) == b""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("true", "wrote no output file"),
        ("echo half > {output}; exit 7", "exit status 7"),
        ("echo half > {output}; kill -9 $$", "killed by signal 9 (SIGKILL)"),
        ("mkdir {output}", "not a regular file"),
        ("mkfifo {output}", "not a regular file"),
        ("ln -s nowhere {output}", "wrote no output file"),
    ],
)
def test_bad_programs_fail_their_range_only(
    command_spec: SpecOf, tmp_path: Path, script: str, told: str
) -> None:
    """The failure says how the program ended, and the next range is not the worse for it."""
    spec = command_spec("sh", "-c", f"if [ {{first}} = 0 ]; then echo fine > {{output}}; else {script}; fi")
    runner = prepare(spec).runner(tmp_path)
    with pytest.raises(PayloadFailed) as failure:
        runner.run(3, 5)
    assert told in str(failure.value)
    assert "sh on events [3, 5)" in str(failure.value)
    assert runner.run(0, 1) == b"fine\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("no-such-program-here", "{output}"), "no program 'no-such-program-here' on PATH"),
        (("/no/such/program", "{output}"), "no program '/no/such/program'"),
        (("./run.sh", "{output}"), "relative path"),
        (("sh", "{here}/x.sh", "{output}"), "{here} stands for"),
        (("cp", "{input}", "{output}"), "the task has no inputs"),
    ],
)
def test_prepare_refuses_what_cannot_run(command_spec: SpecOf, words: tuple[str, ...], told: str) -> None:
    """A missing program, a relative path, or {input} without inputs is told before any range is run."""
    with pytest.raises(PayloadFailed) as failure:
        prepare(command_spec(*words))
    assert told in str(failure.value)


def test_program_that_cannot_be_executed_is_told(command_spec: SpecOf, tmp_path: Path) -> None:
    """An executable file that is no program fails the range with the system's reason."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\0\1\2")
    broken.chmod(0o755)
    runner = prepare(command_spec(str(broken), "{output}")).runner(tmp_path)
    with pytest.raises(PayloadFailed, match="cannot start"):
        runner.run(0, 1)


def test_program_dies_with_its_worker(tmp_path: Path) -> None:
    """When the worker is killed, the program it waits for is killed too."""
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from hpcpanda.domain.outputs import *\nfrom hpcpanda.domain.payloads import *\n"
        "from hpcpanda.domain.task import TaskSpec\nfrom hpcpanda.payload.forms import prepare\n"
        "c = CommandPayload(command=('sh', '-c', 'echo $$; exec sleep 100', 'sh', '{output}'))\n"
        "o = Output(file='o', format=OutputFormat.CONCAT)\n"
        "prepare(TaskSpec(name='t', payload=c, output=o, events=1)).runner(Path(sys.argv[1])).run(0, 1)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    program = os.pidfd_open(int(worker.stdout.readline()))
    worker.kill()
    worker.communicate()
    assert select.select([program], [], [], 10)[0], "the program outlived its worker"
    os.close(program)
