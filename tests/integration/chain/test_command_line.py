"""Every command against running services: what it prints in each mode, and how it exits."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpcpanda_edge.cli
import pytest
import typer
import typer.core
from support.chain import Ran, chain_task, done, run_command, run_to_end, task_toml
from support.services import Services, wait_until

import hpcpanda
import hpcpanda.client.cli
from hpcpanda.domain.dataset import DatasetFile
from hpcpanda.domain.errors import IllegalTransition
from hpcpanda.domain.states import TaskState
from hpcpanda.domain.validation import MAX_EVENTS

MAINS = {"hpcpanda": hpcpanda.client.cli, "hpcpanda-edge": hpcpanda_edge.cli}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that the product has, by its full name."""

    def walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(command, typer.core.TyperGroup):
            for word, below in command.commands.items():
                yield from walk(below, f"{name} {word}")
        else:
            yield name, command

    for name, module in MAINS.items():
        yield from walk(typer.main.get_command(module.app), name)


@dataclass(frozen=True)
class Example:
    """A command line, and what its answer has in it."""

    words: str
    """After the command's name; ``{name}`` is filled in by the test."""
    table: str
    """Pattern that the table has in it."""
    quiet: str
    """Pattern of all that is printed in quiet mode."""
    fields: tuple[str, ...] = ()
    """Names in the JSON document."""


EXAMPLES = {
    "hpcpanda task list": Example("--name {name} --limit 5", r"{name} +done +local +60 +60", r"\d+\n", ("tasks",)),
    "hpcpanda task show": Example("{task}", r"60 done, 0 leased, 0 ready, 0 failed of 60", r"done\n", ("spec",)),
    "hpcpanda task watch": Example("{task}", r"^$", r""),
    "hpcpanda task cancel": Example("{waiting}", r"task \d+ is aborted", r"aborted\n", ("state",)),
    "hpcpanda task pause": Example("{steered}", r"task \d+ is paused", r"paused\n", ("state",)),
    "hpcpanda task resume": Example("{steered}", r"task \d+ is (ready|running)", r"(ready|running)\n", ("state",)),
    "hpcpanda task retry": Example("{steered}", r"task \d+ is (ready|running)", r"(ready|running)\n", ("state",)),
    "hpcpanda task priority": Example("{steered} 7", r"task \d+ has priority 7", r"7\n", ("changes",)),
    "hpcpanda task deadline": Example(
        "{steered} 2030-01-01T00:00:00Z", r"has deadline 2030-01-01T00:00:00\+00:00", r"2030-01-01T00:00:00\+00:00\n", ("changes",)
    ),
    "hpcpanda task explain": Example(
        "{task}", r"- All 60 events are in the outputs\.", r"All 60 events are in the outputs\.\n", ("reasons",)
    ),
    "hpcpanda task outputs": Example("{task}", r"\[0, 60\)", r"/.*/out\.h5\n", ("files",)),
    "hpcpanda task failures": Example(
        "{failed} --limit 1", r"7 +2 .*cannot digest event 7", r"7\n", ("events", "next_after")
    ),
    "hpcpanda task submit": Example(
        "{file}", r"task \d+ accepted: 60 events", r"\d+\n", ("task_id", "progress")
    ),
    "hpcpanda dataset create": Example("s:examples", r"dataset s:examples has 0 files", r"s:examples\n", ("scope",)),
    "hpcpanda dataset add": Example(
        "s:listed --list {listed}", r"(1|0) files? added, (0|1) known; s:listed has 1 file with 10 events", r"0\n", ("added",)
    ),
    "hpcpanda dataset close": Example("s:shut", r"dataset s:shut is closed", r"s:shut\n", ("open",)),
    "hpcpanda dataset show": Example("s:shut", r"state +closed", r"closed\n", ("files", "provenance")),
    "hpcpanda dataset list": Example("--name shut", r"s:shut +closed +local +0", r"s:shut\n", ("datasets",)),
    "hpcpanda dataset files": Example("s:listed", r"0 +f\.root +\[0, 10\) +100", r"f\.root\n", ("files", "next_after")),
    "hpcpanda payload check": Example(
        "{file} --events 6 --workers 1", r"independent of the cut", r"sound\n", ("cuts", "difference")
    ),
    "hpcpanda dispatcher token": Example(
        "user somebody", r"^hpcpanda-user-\S+\n$", r"hpcpanda-user-\S+\n", ("token",)
    ),
    "hpcpanda dispatcher doctor": Example("", r"ok ", r""),
    "hpcpanda simulate": Example(
        "{trace} --site {site} --policy titan", r"Titan-style brokers", r"Titan-style brokers\t[\d.]+\n", ("policies",)
    ),
    "hpcpanda report usage": Example("--by user", r"(?s)core-hours from .*used +useful .*total", r"(local\n)?", ("rows", "total")),
    "hpcpanda edge list": Example("", r"(?m)^laptop +alive +\d{4}-\d\d-\d\d .* UTC +\d+ ", r"(?s).*^laptop$.*|laptop\n"),
    "hpcpanda whoami": Example("", r"scopes +.*tasks:write", r"local\n", ("name", "scopes")),
    "hpcpanda-edge check": Example("{site}", r"ok    launcher\.command", r"", ("site", "findings")),
    "hpcpanda-edge explain": Example(
        "--site {site}", r"edge laptop: running\nNothing is known of backfill windows", r"", ("notes", "tasks", "allocations")
    ),
    "hpcpanda-edge status": Example("--site {site}", r"edge laptop: running", r"", ("allocations", "tasks")),
}  # fmt: skip
"""An example of every command that answers and ends."""

SERVICES = {
    "hpcpanda dispatcher run": "started by the services of these tests",
    "hpcpanda dispatcher backup": "writes a new file each time: see test_doctor",
    "hpcpanda dispatcher restore": "fills an empty database only: see test_doctor",
    "hpcpanda admin audit": "needs an administrator's token: see test_an_administrator_sees_and_takes_back",
    "hpcpanda admin revoke": "the same",
    "hpcpanda admin quarantine": "the same",
    "hpcpanda admin lift": "the same",
    "hpcpanda login": "needs an identity provider: see test_oidc",
    "hpcpanda logout": "needs a login: see test_oidc",
    "hpcpanda-edge run": "started by the services of these tests",
    "hpcpanda-edge drain": "ends the edge: see test_faults",
}
"""Commands that do not answer, and where they are run."""


@dataclass(frozen=True)
class Things:
    """What examples speak of."""

    name: str
    task: int
    failed: int
    waiting: int
    steered: int
    file: Path
    site: Path
    trace: Path
    listed: Path


@pytest.fixture(scope="module")
def things(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Things]:
    """A task that is done, one that has failed, one that can be cancelled, a task file, and the site file."""
    name = "one-of-the-examples"
    file = tmp_path_factory.mktemp("files") / "task.toml"
    file.write_text(task_toml(events="events = 60"))
    trace = file.with_name("host.swf")
    trace.write_text(
        "".join(f"{n} {600 * n} 0 3600 1 -1 -1 1 7200 -1 1 1 1 -1 1 -1 -1 -1\n" for n in range(1, 9))
    )
    listed = file.with_name("files.jsonl")
    listed.write_text('{"name": "f.root", "events": 10, "size": 100}\n')
    task = run_to_end(services, chain_task("generate", events=60, name=name))
    assert task.state is TaskState.DONE
    failed = run_to_end(services, chain_task("poisonous", events=20, settings={"bad": 7}))
    with services.client() as client:
        for made in ("s:listed", "s:shut"):
            client.create_dataset(made)
        client.close_dataset("s:shut")
        client.add_files("s:listed", [DatasetFile(name="f.root", events=10, size=100)])
        waiting, steered = (
            client.submit(chain_task("generate", events=1000, settings={"event_s": 0.1})).task_id
            for _ in range(2)
        )
    yield Things(
        name, task.task_id, failed.task_id, waiting, steered, file, services.site_file, trace, listed
    )
    with services.client() as client:
        client.cancel(steered)
        with contextlib.suppress(IllegalTransition):
            client.cancel(waiting)


@pytest.fixture
def here(services: Services, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """``here("task", "list")``: call ``hpcpanda`` as the user of these services."""
    monkeypatch.setenv("HPCPANDA_STATE", str(services.state))
    monkeypatch.setenv("COLUMNS", "300")
    return lambda *words: run_command(hpcpanda.client.cli.main, *map(str, words))


def test_every_command_has_an_example() -> None:
    """A command that is added is added here, with an example that runs."""
    assert {name for name, _ in commands()} == EXAMPLES.keys() | SERVICES.keys()


@pytest.mark.parametrize("mode", ["table", "json", "quiet"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_command_answers_in_each_mode(
    services: Services, things: Things, here: Callable[..., Ran], name: str, mode: str
) -> None:
    """People get a table, programs one JSON document, scripts identifiers and nothing else; status 0."""
    example = EXAMPLES[name]
    program, *words = name.split()
    words += [w.format_map(vars(things)) for w in example.words.split()]
    if program == "hpcpanda-edge":
        ran = run_command(MAINS[program].main, *words, "--output", mode)
    elif name == "hpcpanda payload check":  # it forks: not in a process that has threads
        done = services.run(program, *words, "-o", mode)
        ran = Ran(done.returncode, done.stdout, done.stderr)
    else:
        ran = here(*words, "-o", mode)
    assert ran.code == 0, ran.err
    if mode == "json" and example.fields:
        document = json.loads(ran.out)
        assert not set(example.fields) - document.keys()
    elif mode == "table":
        assert re.search(example.table.replace("{name}", things.name), ran.out)
    elif mode == "quiet":
        assert re.fullmatch(example.quiet, ran.out)


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda v: v if isinstance(v, str) else "")
def test_help_tells_of_every_option(monkeypatch: pytest.MonkeyPatch, name: str, command: Any) -> None:
    """``-h`` and ``--help`` show the command's own words and each of its options with a word about it."""
    monkeypatch.setenv("COLUMNS", "200")
    program, *words = name.split()
    shown = [run_command(MAINS[program].main, *words, option) for option in ("-h", "--help")]
    assert [ran.code for ran in shown] == [0, 0]
    assert shown[0] == shown[1]
    assert (command.help or "").splitlines()[0] in shown[0].out
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in shown[0].out
            assert parameter.help
            assert parameter.help.split(".")[0][:40] in " ".join(shown[0].out.split())


@pytest.mark.parametrize("program", MAINS)
def test_without_a_command_help_is_shown(program: str) -> None:
    """Called alone, a program lists its commands."""
    shown = run_command(MAINS[program].main)
    words = {name.split()[1] for name, _ in commands() if name.split()[0] == program}
    assert words
    assert all(f" {word} " in shown.out + shown.err for word in words)


def test_the_version_is_told() -> None:
    """And is that of the package."""
    assert run_command(hpcpanda.client.cli.main, "--version").out.strip() == hpcpanda.__version__


def test_a_page_tells_how_to_get_the_next(things: Things, here: Callable[..., Ran]) -> None:
    """The number to go on with stands on stderr, so that the list itself stays clean; and it works."""
    first = here("task", "list", "-o", "quiet", "--limit", "1")
    after = re.search(r"more: --after (\d+)", first.err)
    assert after
    second = here("task", "list", "-o", "quiet", "--limit", "1", "--after", after[1])
    assert int(second.out) < int(first.out)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("task", "show", "999999"), 1, "task 999999"),
        (("task", "watch", "999999"), 1, "task 999999"),
        (("task", "explain", "999999"), 1, "task 999999"),
        (("task", "outputs", "999999"), 1, "task 999999"),
        (("task", "failures", "999999"), 1, "task 999999"),
        (("task", "cancel", "999999"), 1, "task 999999"),
        (("task", "cancel", "{task}"), 1, "done"),
        (("task", "watch", "{failed}"), 3, "1 event failed and the task may lose none"),
        (("task", "show", "0"), 2, "'task_id'"),
        (("task", "show", "one"), 2, "'task_id'"),
        (("task", "list", "--limit", "0"), 2, "--limit"),
        (("task", "list", "--state", "lost"), 2, "--state"),
        (("task", "list", "--output", "xml"), 2, "--output"),
        (("task", "submit", "/nonexistent.toml"), 2, "/nonexistent.toml"),
        (("task", "submit"), 2, "'file'"),
        (("task", "dance"), 2, "dance"),
        (("--dispatcher", "http://127.0.0.1:9", "task", "list"), 1, "is it running?"),
        (("--dispatcher", "127.0.0.1:9", "task", "list"), 1, "url: '127.0.0.1:9' is not of the form"),
        (("--token-file", "/nonexistent", "task", "list"), 1, "give --token-file or HPCPANDA_TOKEN_FILE"),
        (
            ("--token-file", "{file}", "task", "list"),
            1,
            "token: is empty, or has characters that no token has",
        ),
        (("dispatcher", "token", "king", "me"), 1, "scope: 'king' is none of user, edge"),
        (("dispatcher", "token", "user", "a b"), 1, "name: 'a b' is not a name"),
        (("dispatcher", "run", "--port", "70000"), 2, "--port"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else None,
)
def test_an_error_says_what_is_wrong(
    things: Things, here: Callable[..., Ran], words: tuple[str, ...], code: int, told: str
) -> None:
    """On stderr, in words that name the thing; exit status 1 for errors, 2 for wrong usage, 3 for a bad end."""
    ran = here(*(w.format_map(vars(things)) for w in words))
    assert ran.code == code
    assert told in ran.err
    assert ran.out == ""


def test_a_stranger_s_token_is_refused(tmp_path: Path, things: Things, here: Callable[..., Ran]) -> None:
    """A token that was never made, and one of an edge where a user's is needed."""
    token = tmp_path / "token"
    token.write_text("hpcpanda-user-never-made")
    assert "token" in here("--token-file", token, "task", "list").err
    token.write_text(here("dispatcher", "token", "edge", "elsewhere").out)
    ran = here("--token-file", token, "task", "list")
    assert ran.code == 1
    assert "tasks:read" in ran.err
    assert "none that you may see" in here("--token-file", token, "task", "show", things.task).err


def test_an_administrator_sees_and_takes_back(
    tmp_path: Path, things: Things, here: Callable[..., Ran]
) -> None:
    """With an administrator's token: who did what, a page at a time; a user's token that is taken back is refused from then
    on. With another token both are refused, and say which scope they need."""
    admin, user = tmp_path / "admin", tmp_path / "user"
    admin.write_text(here("dispatcher", "token", "admin", "root").out)
    user.write_text(here("dispatcher", "token", "user", "leaver").out)
    for name in ("s:first-words", "s:last-words"):
        here("--token-file", user, "dataset", "create", name)
    first = here("--token-file", admin, "admin", "audit", "--who", "user:leaver", "--limit", "1")
    assert re.search(r"UTC +user:leaver +POST /v1/datasets +dataset s:last-words +127\.0\.0\.1", first.out)
    before = re.search(r"more: --before (\d+)", first.err)
    assert before
    earlier = here("--token-file", admin, "admin", "audit", "--who", "user:leaver", "--before", before[1])
    assert "dataset s:first-words" in earlier.out
    assert "last-words" not in earlier.out
    gone = here("--token-file", admin, "admin", "revoke", "user", "leaver")
    assert gone.out == "1 token and 0 sessions of user leaver taken back\n"
    assert here("--token-file", user, "whoami").code == 1
    listed = here("--token-file", admin, "admin", "quarantine")
    assert re.search(r"edge +node +until +why", listed.out)
    lifted = here("--token-file", admin, "admin", "lift", "laptop")
    assert lifted.out == "edge laptop and all its nodes may be used again\n"
    sound = here("--token-file", admin, "admin", "lift", "laptop", "--node", "n7")
    assert (sound.code, "edge laptop has no node 'n7' in quarantine" in sound.err) == (1, True)
    for words in (("audit",), ("revoke", "user", "leaver"), ("quarantine",), ("lift", "laptop")):
        refused = here("admin", *words)
        assert refused.code == 1
        assert "this needs a token of scope admin" in refused.err


def test_a_second_dispatcher_over_the_same_state_is_refused(here: Callable[..., Ran]) -> None:
    """It names the folder and ends with status 1."""
    ran = here("dispatcher", "run")
    assert ran.code == 1
    assert re.search(r"another dispatcher is running over .*dispatcher; stop it first", ran.err)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("events = 60", "events = 60\nevnts = 3", "evnts: "),
        ("events = 60", "events = -5", "events: -5 is outside 1..9223372036854775807"),
        ("events = 60", "events = 0", "events: 0 is outside 1.."),
        ("events = 60", f"events = {MAX_EVENTS + 1}", f"events: {MAX_EVENTS + 1} is outside 1..{MAX_EVENTS}"),
        ("events = 60", 'events = "many"', "events: "),
        ("events = 60", "events = 1.5", "events: "),
        ("events = 60", "", "events: say one of 'events', 'inputs' and 'jobs'"),
        ("events = 60", "events = 60\nseed = -1", "seed: -1 is outside"),
        ("events = 60", "events = 60\npriority = 1001", "priority: 1001 is outside -1000..1000"),
        ("events = 60", "events = ", "is not TOML"),
        ('name = "', 'name = "two words ', "name: "),
        ("chain_payload:generate", "chain_payload.generate", "payload.call: "),
        ('form = "callable"', 'form = "callible"', "payload.form"),
        ("target_seconds = 0.1", "target_seconds = nan", "ranges.target_seconds: nan is outside"),
        ("out.h5", "../out.h5", "output.file: "),
        ("[ranges]", "[loss]\nattempts = 0\n[ranges]", "loss.attempts: 0 is outside 1..100"),
        (
            "events = 60",
            'inputs = {format = "hdf5", container = "x", files = [{path = "/a", events = 10, clusters = [5, 5]}]}',
            "clusters: must be increasing and inside the file",
        ),
        (
            "events = 60",
            'inputs = {format = "lhe", files = ["/nonexistent.lhe"]}',
            "/nonexistent.lhe",
        ),
    ],
    ids=lambda v: v if isinstance(v, str) and len(v) < 30 else None,
)
def test_a_wrong_field_is_named(
    tmp_path: Path, things: Things, here: Callable[..., Ran], old: str, new: str, told: str
) -> None:
    """A task file with a mistake is refused with its name and the field's, in one line, and nothing is submitted."""
    text = things.file.read_text()
    assert old in text
    file = tmp_path / "wrong.toml"
    file.write_text(text.replace(old, new, 1))
    before = here("task", "list", "-o", "quiet").out
    ran = here("task", "submit", file)
    assert ran.code == 1
    assert ran.err.startswith(f"hpcpanda: {file}: ")
    assert told in ran.err
    assert ran.err.count("\n") == 1
    assert here("task", "list", "-o", "quiet").out == before


def test_submit_and_watch(tmp_path: Path, things: Things, here: Callable[..., Ran]) -> None:
    """One command from the task file to the end: the number on stdout, progress on stderr, status 0."""
    file = tmp_path / "task.toml"
    file.write_text(things.file.read_text().replace("events = 60", "events = 60\npriority = 5"))
    ran = here("task", "submit", file, "--watch", "-o", "quiet")
    assert ran.code == 0
    task_id = int(ran.out)
    assert re.search(rf"task {task_id} done: 60 of 60 events", ran.err)
    assert ran.err.endswith(f"task {task_id} is done\n")


def test_submit_and_watch_of_a_task_that_fails(tmp_path: Path, here: Callable[..., Ran]) -> None:
    """Status 3, and the reason as the payload said it, brackets and all."""
    file = tmp_path / "task.toml"
    file.write_text(task_toml("with_brackets", events="events = 1\npriority = 5"))
    ran = here("task", "submit", file, "--watch", "-o", "quiet")
    assert ran.code == 3
    said = "no such [bold]column[/bold] in [/tree] :cat:"
    assert said in ran.err
    for command in ("show", "explain", "failures"):
        assert said in here("task", command, ran.out.strip()).out


def test_the_largest_event_space_can_be_run(
    tmp_path: Path, things: Things, here: Callable[..., Ran], services: Services
) -> None:
    """2^63 - 1 events are accepted, begun, counted, explained and cancelled like any other."""
    file = tmp_path / "task.toml"
    file.write_text(things.file.read_text().replace("events = 60", f"events = {MAX_EVENTS}\npriority = 5"))
    ran = here("task", "submit", file)
    assert f"accepted: {MAX_EVENTS:,} events" in ran.out
    task_id = int(ran.out.split()[1])
    try:
        with services.client() as client:
            wait_until(lambda: done(client, task_id) > 0, "the first events")
        shown = json.loads(here("task", "show", task_id, "-o", "json").out)["progress"]
        assert shown["ready"] + shown["leased"] + shown["done"] == shown["total"] == MAX_EVENTS
        explained: list[str] = []
        leased = re.compile(r"- \d+ events are leased to edge laptop\.")

        def tells_who_has_them() -> bool:
            explained[:] = [here("task", "explain", task_id).out]
            return leased.search(explained[0]) is not None

        wait_until(tells_who_has_them, "the explanation")
        assert re.search(r"- \d{15,} events are ready, waiting for an edge to ask for work\.", explained[0])
    finally:
        cancelled = here("task", "cancel", task_id, "-o", "quiet")
    assert cancelled.out == "aborted\n"
    assert "It is aborted: cancelled by local" in here("task", "explain", task_id).out


@pytest.mark.parametrize(
    ("call", "events", "code", "word"),
    [
        ("generate", 6, 0, "sound"),
        ("cut_dependent", 6, 3, "not sound"),
        ("with_brackets", 2, 3, "not sound"),
        ("no_such_function", 2, 1, None),
        ("generate", 0, 2, None),
    ],
)
def test_payload_check_tells_by_its_status(
    services: Services, tmp_path: Path, call: str, events: int, code: int, word: str | None
) -> None:
    """0: fit; 3: it fails, or depends on the cut; 1: it cannot even be tried; 2: wrong usage."""
    file = tmp_path / "task.toml"
    file.write_text(task_toml(call))
    ran = services.run("hpcpanda", "payload", "check", str(file), "--events", str(events), "-o", "quiet")
    assert ran.returncode == code, ran.stderr
    assert ran.stdout == (f"{word}\n" if word else "")
    if code == 1:
        assert ran.stderr.startswith("hpcpanda: payload.call: ")
        assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("status",), 2, "--site"),
        (("status", "--site", "/nonexistent"), 1, "/nonexistent: cannot be read"),
        (
            ("status", "--site", "{site}", "--spool", "/nonexistent"),
            1,
            "no edge has run over the spool /nonexistent",
        ),
        (("drain", "--site", "{site}", "--spool", "/nonexistent"), 1, "no edge is running over the spool"),
        (("check", "{file}"), 1, "spool: "),
        (("run", "--site", "{site}", "--token-file", "/nonexistent"), 1, "/nonexistent: No such file"),
        (("run", "--site", "{site}", "--dispatcher", "nowhere"), 1, "url: 'nowhere' is not of the form"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else None,
)
def test_the_edge_says_what_is_wrong(
    services: Services,
    tmp_path: Path,
    things: Things,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    code: int,
    told: str,
) -> None:
    """As the other command does: one line on stderr, and a status."""
    monkeypatch.setenv("HPCPANDA_STATE", str(services.state))
    monkeypatch.setenv("COLUMNS", "200")
    more = ("--spool", str(tmp_path)) if words[0] == "run" else ()
    ran = run_command(hpcpanda_edge.cli.main, *(w.format_map(vars(things)) for w in words), *more)
    assert ran.code == code
    assert told in ran.err


def test_a_second_edge_over_the_same_spool_is_refused(
    services: Services, things: Things, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the process that holds the spool, and ends with status 1."""
    monkeypatch.setenv("HPCPANDA_STATE", str(services.state))
    ran = run_command(hpcpanda_edge.cli.main, "run", "--site", str(things.site))
    assert ran.code == 1
    assert (
        f"another edge runs over the spool {services.spool} (process {services.started['edge'].pid})"
        in ran.err
    )
