"""A lock that processes on several hosts share, as a file in a folder that all of them see.

Network file systems disagree about flock; creating a file that must not exist yet is atomic on all of them. The file
holds its owner's token. An owner that dies leaves it behind: whoever has watched one token for STALE_S, by its own
clock, takes the lock over. No process number and no clock of another host is relied on.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STALE_S = 20.0
"""No owner needs the lock for so long."""
PATIENCE_S = 60.0


class FolderLock:
    """A lock file; threads of one process queue for it among themselves first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread_lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_path": self._path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._thread_lock = threading.Lock()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock; raise OSError when it cannot be had."""
        token = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        with self._thread_lock:
            self._acquire(token)
            try:
                yield
            finally:
                if self._owner() == token:
                    self._path.unlink(missing_ok=True)

    def _acquire(self, token: str) -> None:
        started = watched_since = time.monotonic()
        watched = None
        while not self._create(token):
            owner, now = self._owner(), time.monotonic()
            if owner != watched:
                watched, watched_since = owner, now
            elif now - watched_since > STALE_S:
                self._break(owner)
                watched_since = now
            if now - started > PATIENCE_S:
                raise OSError(f"{self._path} has been held by {owner} for too long")
            time.sleep(random.uniform(0.001, 0.01))

    def _create(self, token: str) -> bool:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "w") as file:
            file.write(token)
        return True

    def _break(self, owner: str | None) -> None:
        """Take the lock of a dead owner out of the way, unless another process has done so and owns it now."""
        aside = self._path.with_name(f"{self._path.name}-{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._path, aside)
            if aside.read_text() != owner:
                with contextlib.suppress(OSError):
                    os.link(aside, self._path)
            aside.unlink(missing_ok=True)

    def _owner(self) -> str | None:
        try:
            return self._path.read_text()
        except OSError:
            return None
