"""What the command line prints is what was said, and its helpers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hpcpanda.client.output import Output, OutputMode, duration, rate, table
from hpcpanda.client.sdk import DispatcherClient
from hpcpanda.dispatcher.settings import load_settings
from hpcpanda.domain.errors import InvalidValue

SAID = "[bold]no[/bold] such [/column] at [0, 4) :cat: 123"


@dataclass(frozen=True)
class Value:
    """Something with JSON."""

    text: str


@pytest.mark.parametrize("shown", [SAID, table("error", rows=[(SAID,)])], ids=["text", "table"])
def test_words_of_payloads_are_no_markup(capsys: pytest.CaptureFixture[str], shown: object) -> None:
    """Brackets and colons of an error reach the terminal as they are."""
    Output(OutputMode.TABLE).result(Value(SAID), table=shown, quiet=[])  # type: ignore[arg-type]
    Output(OutputMode.TABLE).say(SAID)
    printed = capsys.readouterr()
    assert SAID in printed.out
    assert printed.err == SAID + "\n"


@pytest.mark.parametrize("as_table", [False, True])
def test_a_terminal_does_not_obey_what_payloads_print(
    capsys: pytest.CaptureFixture[str], as_table: bool
) -> None:
    """An error of somebody's job cannot clear an operator's screen or set a title; tabs and new lines stay."""
    said = "\x1b[2Jgone\x07\rx \x9b31m\x7f é ☃\tend"
    shown = table("error", rows=[(said,)]) if as_table else said
    Output(OutputMode.TABLE).result(Value(said), table=shown, quiet=[])
    Output(OutputMode.TABLE).say(said)
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert "\\x1b[2Jgone\\x07\\rx \\x9b31m\\x7f é ☃" in text
        assert not set(text) & {"\x1b", "\x07", "\r", "\x9b", "\x7f"}


def test_long_lines_are_not_cut(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence with a long path stays one line, so that it can be searched and copied."""
    monkeypatch.setenv("COLUMNS", "40")
    path = "/a/very/long/path" * 20
    Output(OutputMode.TABLE).result(Value(""), table=path, quiet=[])
    assert capsys.readouterr().out == path + "\n"


def test_quiet_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Quiet prints lines, JSON the whole value."""
    Output(OutputMode.QUIET).result(Value("x"), table="", quiet=[1, "b"])
    assert capsys.readouterr().out == "1\nb\n"
    Output(OutputMode.JSON).result(Value("x"), table="", quiet=[])
    assert capsys.readouterr().out == '{\n  "text": "x"\n}\n'


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (86_399, "23 h 59 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations_are_rounded_once(seconds: float, words: str) -> None:
    """No '60 s' and no '60 min'."""
    assert duration(seconds) == words


@pytest.mark.parametrize("token", ["", "two words", "two\nlines", "binary\0", "caf\u00e9"])
def test_a_file_that_is_no_token_is_noticed(token: str) -> None:
    """Before anything is sent, and without showing what was in it."""
    with pytest.raises(InvalidValue, match="token: is empty, or has characters that no token has") as told:
        DispatcherClient("http://127.0.0.1:1", token)
    assert not token or token not in str(told.value)


@pytest.mark.parametrize(
    ("name", "value"), [("LEASE_SECONDS", "soon"), ("PORT", "70000"), ("SWEEP_SECONDS", "-1")]
)
def test_a_wrong_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """And shows the value."""
    monkeypatch.setenv(f"HPCPANDA_DISPATCHER_{name}", value)
    with pytest.raises(InvalidValue, match=f"HPCPANDA_DISPATCHER_{name}: .*{value}"):
        load_settings(state="/nowhere")


@pytest.mark.parametrize(
    ("per_second", "words"),
    [(0.0, "0 jobs/s"), (1234.5, "1,234 jobs/s"), (0.5, "30 jobs/min"), (0.001, "4 jobs/h")],
)
def test_slow_rates_are_told_by_the_minute_or_the_hour(per_second: float, words: str) -> None:
    """Jobs that take minutes are not '0 a second'."""
    assert rate(per_second, "job") == words
