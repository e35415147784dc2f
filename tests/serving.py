"""Small servers of the tests' own, on loopback, in threads; and what starting a server takes."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Set environment variables while the block runs."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that were killed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on loopback while the block runs; give the port."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def processes(commands: Sequence[Sequence[str | Path]], log: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run servers while the block runs; what they say goes to the file `log`."""
    running: list[subprocess.Popen[bytes]] = []
    with log.open("ab") as out:
        try:
            for words in commands:
                command = [str(word) for word in words]
                running.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out))
            yield running
        finally:
            for process in running:
                process.terminate()
            for process in running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=10)
                process.kill()
                process.wait()


def await_answer(url: str, log: Path, seconds: float = 90) -> None:
    """Wait until a server answers at all, be it with an error; raise AssertionError with its log when it does not."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            said = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            assert time.monotonic() < deadline, f"{url} did not start to answer. {said}"
            time.sleep(0.05)
