"""Fixtures for tests of site descriptions."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcpanda.client.site_file import load_site
from hpcpanda.domain.site import Site

Programs = Callable[..., Path]


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Site]:
    """Load a site file over a spool of its own, with a value for every variable that it uses."""

    def load(path: Path) -> Site:
        for name in re.findall(r"\$(\w+)", path.read_text()):
            monkeypatch.setenv(name, {"HPCPANDA_ACCOUNT": "m0000", "USER": "me"}.get(name, "/dummy"))
        assert load_site(path).spool.startswith("/")
        return load_site(path, spool=tmp_path / "spool")

    return load


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Put stand-ins for programs on PATH; they work in one folder, which is given back."""
    folder = tmp_path / "programs"

    def put(**texts: str) -> Path:
        folder.mkdir(exist_ok=True)
        for name, text in texts.items():
            program = folder / name
            program.write_text(f"#!/bin/bash\ncd {folder}\n{text}")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return folder

    return put
