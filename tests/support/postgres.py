"""A real PostgreSQL for tests: Debian's, as a user that is not root, in a folder of its own, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest

from hpcpanda.dispatcher.store.postgres import PostgresDatabase

_PACKAGES = ("postgresql",)
_NEEDED = f"run 'apt-get install --no-install-recommends {' '.join(_PACKAGES)}' as root, or put PostgreSQL's bin folder on PATH"
_POLICY = Path("/usr/sbin/policy-rc.d")
_USERS = ("postgres", "nobody")
PASSWORD = "loopback-only"
TEMPLATE = "made_once"
START_SECONDS = 60.0


class NotInstalled(Exception):
    """PostgreSQL is not there and cannot be installed from here."""


def ensure_installed() -> Path:
    """The folder of PostgreSQL's programs; Debian's package is installed when it is missing.

    Raises:
        NotInstalled: it cannot be done; the text says what to do.
    """
    if (found := _programs()) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise NotInstalled(f"there is no PostgreSQL here; {_NEEDED}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *_PACKAGES)
    with _no_service_starts():
        for words in (install, ("apt-get", "update", "--quiet"), install):
            done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
            if (found := _programs()) is not None:
                return found
    raise NotInstalled(f"{shlex.join(install)} failed: {done.stderr[-1000:]}")


def _programs() -> Path | None:
    folders = [Path(f) for f in os.environ.get("PATH", "").split(os.pathsep) if f]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    needed = ("initdb", "postgres", "pg_dump")
    return next((f for f in folders if all((f / name).exists() for name in needed)), None)


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Keep packages from starting what they bring, by Debian's own means."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


@dataclass(slots=True)
class PostgresServer:
    """A server over a folder; every commit is on disk (``fsync`` is on)."""

    folder: Path
    programs: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def create(cls, folder: Path) -> PostgresServer:
        """Make a cluster in a folder of its own."""
        server = cls(folder, ensure_installed(), _free_port())
        folder.chmod(0o755)
        if (account := _account()) is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        words = (
            "--auth-host=scram-sha-256",
            "--auth-local=scram-sha-256",
            "--username=hpcpanda",
            "--no-sync",
        )
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        server._run(
            "initdb", "-D", str(server.data), *words, f"--pwfile={password}", "--encoding=UTF8", "--locale=C"
        )
        return server

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str) -> str:
        """How to connect to a database of it."""
        return f"postgresql://hpcpanda:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it takes connections; after a kill it recovers first."""
        settings = (
            *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}"),
            *(
                "-c",
                "fsync=on",
                "-c",
                "max_connections=80",
                "-c",
                "shared_buffers=64MB",
                "-c",
                "log_lock_waits=on",
            ),
        )
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, "-p", str(self.port), *settings],
                stdout=log,
                stderr=log,
                cwd="/",
                **_as_user(),
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self.process.poll() is None, f"PostgreSQL ended; see {self.folder}/log"
            assert time.monotonic() < deadline, f"PostgreSQL does not start; see {self.folder}/log"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End it at once; nothing of it is left."""
        if self.process is not None:
            self.kill()

    def kill(self) -> None:
        """SIGKILL every process of it at once, as a power cut would."""
        assert self.process is not None
        main = psutil.Process(self.process.pid)
        victims = [main, *main.children(recursive=True)]
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        psutil.wait_procs(victims, timeout=10)
        self.process.wait()
        self.process = None

    def create_database(self, template: str | None = None) -> str:
        """A new database, empty or a copy; gives its address."""
        name = f"test_{next(self.numbers)}"
        copy = f" TEMPLATE {template}" if template else ""
        self.execute("postgres", f"CREATE DATABASE {name}{copy}")
        return self.url(name)

    def execute(self, database: str, statement: str) -> None:
        """Run a statement outside of a transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [self.programs / program, *words],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            **_as_user(),
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"


@contextlib.contextmanager
def running_server() -> Iterator[PostgresServer]:
    """A server of the caller's own; skips the test where PostgreSQL cannot be had."""
    folder = Path(tempfile.mkdtemp(prefix="hpcpanda-postgres-"))
    try:
        try:
            server = PostgresServer.create(folder)
        except NotInstalled as reason:
            pytest.skip(str(reason))
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests, with a database at the newest schema to copy from."""
    with running_server() as server:
        server.execute("postgres", f"CREATE DATABASE {TEMPLATE}")
        _migrate(server.url(TEMPLATE))
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """A database of the test's own, at the newest schema."""
    return postgres_server.create_database(TEMPLATE)


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> str:
    """A database of the test's own without any table."""
    return postgres_server.create_database()


def _migrate(url: str) -> None:
    async def run() -> None:
        database = PostgresDatabase(url)
        await database.migrate()
        await database.close()

    with ThreadPoolExecutor(1) as thread:  # there may be a loop here that runs already
        thread.submit(lambda: asyncio.run(run())).result()


def _account() -> pwd.struct_passwd | None:
    """The user to run as when this one is root, as whom PostgreSQL does not run."""
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NotInstalled(f"PostgreSQL does not run as root, and there is no user {' or '.join(_USERS)}")


def _as_user() -> dict[str, object]:
    account = _account()
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
