"""The edge's own folder in the spool: its memory, its instance id, the lock against a second edge."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcpanda.domain.errors import Unavailable


@dataclass(frozen=True, slots=True)
class StateFolder:
    """Paths of what an edge keeps beside its spool."""

    path: Path

    @classmethod
    def of(cls, spool: Path | str) -> StateFolder:
        """The state folder of the edge over this spool."""
        return cls(Path(spool) / "edge")

    @property
    def database(self) -> Path:
        """What the edge remembers."""
        return self.path / "edge.sqlite"

    @property
    def lock(self) -> Path:
        """Held by the running edge."""
        return self.path / "lock"

    @property
    def drain_request(self) -> Path:
        """While this file exists, the running edge drains and then ends."""
        return self.path / "drain"

    @property
    def outlook(self) -> Path:
        """What only the running edge knows, for those who ask."""
        return self.path / "outlook.json"

    @property
    def psij(self) -> Path:
        """Scripts of the batch system adapter."""
        return self.path / "psij"

    def create(self) -> None:
        """Make the folder.

        Raises:
            Unavailable: the spool cannot be written to.
        """
        try:
            self.psij.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise Unavailable(
                f"the spool folder cannot be used: {self.path}: {problem.strerror}; make it writable, or name "
                "another one as 'spool' in the site file"
            ) from problem

    def instance(self) -> str:
        """The id under which this edge is known, the same after every restart."""
        path = self.path / "instance"
        with contextlib.suppress(FileNotFoundError):
            if known := path.read_text().strip():
                return known
        new = f"edge-{secrets.token_hex(8)}"
        temporary = path.with_name(f".instance.{os.getpid()}")
        with temporary.open("w") as file:
            file.write(new + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return new

    @contextlib.contextmanager
    def only_one(self) -> Iterator[None]:
        """Hold the folder against a second edge.

        Raises:
            Unavailable: another edge runs over this spool.
        """
        with self.lock.open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                raise Unavailable(
                    f"another edge runs over the spool {self.path.parent} (process {lock.read().strip() or '?'}); "
                    "stop that one, or use another spool"
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def in_use(self) -> bool:
        """Whether an edge runs over this spool."""
        try:
            with self.lock.open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False
