"""Run a dispatcher, and make tokens for it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI

from hpcpanda.dispatcher.app import build_app
from hpcpanda.dispatcher.auth import issue_token
from hpcpanda.dispatcher.backup import BackupFile, restore_backup, write_backup
from hpcpanda.dispatcher.bell import Bell
from hpcpanda.dispatcher.clock import SteadyClock
from hpcpanda.dispatcher.connections import ImpatientHttp, allow_many_files
from hpcpanda.dispatcher.identity.scopes import TokenKind
from hpcpanda.dispatcher.settings import DispatcherSettings
from hpcpanda.dispatcher.store.database import Database
from hpcpanda.dispatcher.store.opening import open_database
from hpcpanda.dispatcher.store.unit import Store
from hpcpanda.domain.errors import InvalidValue, Unavailable
from hpcpanda.domain.validation import require_name


def serve(settings: DispatcherSettings) -> None:
    """Run a dispatcher until SIGTERM or SIGINT.

    Writes ``user.token`` and ``edges/<name>.token`` at the first start, and the URL to ``url`` and to
    standard output once it answers.

    Raises:
        Unavailable: another dispatcher uses the state folder, it cannot be written to, or the address is taken.
    """
    _log_to_stderr()
    allow_many_files()
    _make_folder(settings.state)
    with _only_one(settings.state), _listen(settings) as listener:
        asyncio.run(_migrate(settings))
        ensure_token(settings, TokenKind.USER, settings.user_name)
        ensure_token(settings, TokenKind.EDGE, settings.edge_name)
        bell = Bell()
        app = build_app(settings, bell=bell)
        _make_routes(app)
        config = uvicorn.Config(
            app,
            http=ImpatientHttp,
            log_config=None,
            access_log=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=settings.trusted_proxies or None,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            timeout_graceful_shutdown=settings.grace_seconds,
        )
        host, port = listener.getsockname()[:2]
        scheme = "http" if settings.tls_certificate is None else "https"
        url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        _Server(config, bell, url, settings.url_file).run(sockets=[listener])


def create_token(settings: DispatcherSettings, scope: str, name: str, *, days: float | None = None) -> str:
    """Make a token for a user, an edge, an administrator or a monitor; shown once, kept as a digest only.

    Works beside a running dispatcher. The token ends after so many days, if they are given.

    Raises:
        InvalidValue: the scope is none of ``user``, ``edge``, ``admin`` and ``monitor``, or the name is none.
    """
    if scope not in list(TokenKind):
        raise InvalidValue("scope", f"{scope!r} is none of {', '.join(TokenKind)}")
    require_name("name", name)
    _make_folder(settings.state)
    return asyncio.run(_create_token(settings, TokenKind(scope), name, days))


def ensure_token(settings: DispatcherSettings, scope: str, name: str) -> Path:
    """The file with the token of a user or an edge, mode 0600; made with a new token when missing.

    Raises:
        InvalidValue: the scope is none of ``user`` and ``edge``, or the name is none.
    """
    path = settings.edge_token_file(name) if scope == TokenKind.EDGE else settings.user_token_file
    if not path.exists():
        token = create_token(settings, scope, name)
        _make_folder(path.parent)
        _write_private(path, token + "\n")
    return path


def back_up(settings: DispatcherSettings, path: Path) -> BackupFile:
    """Write the whole database, as of now, to a file. Works beside running dispatchers.

    Raises:
        Conflict: the file is there already.
        Unavailable: the database or the file cannot be used.
    """
    if settings.database is None and not settings.database_file.exists():
        raise Unavailable(f"there is no {settings.database_file}: nothing to back up")

    async def write(database: Database) -> BackupFile:
        return await write_backup(database, path)

    return asyncio.run(_over(settings, write))


def restore(settings: DispatcherSettings, path: Path) -> BackupFile:
    """Fill the empty database from a backup.

    Raises:
        Conflict: the database is not empty.
        CorruptData: the file is no backup, or is damaged.
        Unavailable: the database or the file cannot be used, or a dispatcher runs over the state folder.
    """

    async def fill(database: Database) -> BackupFile:
        return await restore_backup(database, path)

    _make_folder(settings.state)
    with _only_one(settings.state):
        return asyncio.run(_over(settings, fill))


def _make_routes(app: FastAPI) -> None:
    """Have FastAPI make now what it makes when it first looks for a route: a second's work, for which requests would wait."""
    for route in app.routes:
        route.matches(
            {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": [], "app": app}
        )


class _Server(uvicorn.Server):
    """Announces where it listens, and releases waiting requests before it stops."""

    def __init__(self, config: uvicorn.Config, bell: Bell, url: str, url_file: Path) -> None:
        super().__init__(config)
        self._bell = bell
        self._url = url
        self._url_file = url_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            gc.collect()
            gc.freeze()  # what is there now stays; looking through it again and again would hold up requests
            _write_private(self._url_file, self._url + "\n")
            sys.stdout.write(self._url + "\n")
            sys.stdout.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._bell.close()
        self._url_file.unlink(missing_ok=True)
        await super().shutdown(sockets)


async def _create_token(settings: DispatcherSettings, kind: TokenKind, name: str, days: float | None) -> str:
    database = open_database(settings)
    try:
        await database.migrate()
        now = SteadyClock()()
        expires = None if days is None else now + days * 86_400.0
        return await issue_token(Store(database).writing(), kind=kind, name=name, now=now, expires=expires)
    finally:
        await database.close()


async def _migrate(settings: DispatcherSettings) -> None:
    """Bring the database up to date before the server starts, so that a broken one is told in one line."""
    database = open_database(settings)
    try:
        await database.migrate()
    finally:
        await database.close()


async def _over(settings: DispatcherSettings, act: Callable[[Database], Awaitable[BackupFile]]) -> BackupFile:
    database = open_database(settings)
    try:
        return await act(database)
    finally:
        await database.close()


def _log_to_stderr() -> None:
    """One JSON object a line; tracebacks without the values of variables, which may be secret."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _make_folder(folder: Path) -> None:
    """Make the state folder, or find out now that nothing can be written there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as problem:
        raise Unavailable(
            f"the state folder {folder} cannot be used: {problem.strerror}; make it writable, or choose another with --state"
        ) from problem


def _write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextlib.contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Hold the state folder against a second dispatcher."""
    with (state / "dispatcher.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another dispatcher is running over {state}; stop it first") from None
        yield


@contextlib.contextmanager
def _listen(settings: DispatcherSettings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is said so that asyncio switches Nagle's algorithm off: it costs 40 ms an answer.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            where = f"{settings.host}:{settings.port}"
            raise Unavailable(f"cannot listen on {where}: {error.strerror}; choose another port") from error
        yield listener
