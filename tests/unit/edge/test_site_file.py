"""Site files: every error names the file and the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hpcpanda_edge.site_file import load_site

from hpcpanda.domain.errors import InvalidValue

GOOD = 'name = "here"\nspool = "/spool"\n[nodes]\ncount = 2\ncores = 4\nmemory_mb = 1000\n'
CONFIGS = Path(__file__).parents[3] / "site-configs"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_every_site_file_that_comes_with_the_product_is_right(path: Path, monkeypatch: pytest.MonkeyPatch):
    """They load with the variables they use set."""
    for name in ("SCRATCH", "PSCRATCH", "WORK", "USER", "PROJECT"):
        monkeypatch.setenv(name, "/scratch")
    assert load_site(path).name


def test_home_and_variables_in_the_spool_are_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``~`` and ``$VARIABLES`` both."""
    monkeypatch.setenv("HOME", "/home/engineer")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    home = write(tmp_path, GOOD.replace("/spool", "~/spool"))
    assert load_site(home).spool == "/home/engineer/spool"
    scratch = write(tmp_path, GOOD.replace("/spool", "$SCRATCH/spool"))
    assert load_site(scratch).spool == "/scratch/me/spool"


def test_a_spool_given_by_hand_wins(tmp_path: Path):
    """For trying a site file elsewhere."""
    assert load_site(write(tmp_path, GOOD), spool=tmp_path).spool == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("cores = 4", "cores = 0"), "nodes.cores: 0 is outside"),
        (GOOD.replace("cores = 4", 'cores = "four"'), "nodes.cores: Input should be a valid integer"),
        (GOOD.replace("cores = 4", ""), "nodes.cores: Field required"),
        (GOOD.replace("cores = 4", "cores = 4\ncolour = 1"), "nodes.colour: Unexpected keyword argument"),
        (GOOD.replace("/spool", "spool"), "spool: 'spool' is not an absolute path"),
        (GOOD.replace("/spool", "$NO_SUCH_VARIABLE/x"), "spool: the variable NO_SUCH_VARIABLE"),
        (GOOD + '[launcher]\ncommand = ["srun"]\n', "launcher.command: must name {ranks}"),
        ("name = ", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_field(tmp_path: Path, text: str, message: str):
    """One line that a person can act on."""
    path = write(tmp_path, text)
    with pytest.raises(InvalidValue) as caught:
        load_site(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path):
    """With the reason of the system."""
    with pytest.raises(InvalidValue, match=r"none.toml: cannot be read: No such file"):
        load_site(tmp_path / "none.toml")
