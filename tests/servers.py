"""Servers on loopback for tests: S3, a web server that knows ranges, and a proxy that makes faults on request."""

from __future__ import annotations

import http.client
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Run an S3 server; give the environment that reaches it, with a bucket named "bucket"."""
    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT"), timeout=5)
                break
            assert time.monotonic() < deadline, "the S3 server did not start"
            time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "not-to-be-told",
            "AWS_REGION": "us-east-1",
        }
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serve a folder over http with ranges; give its URL."""

    class Files(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = folder / self.path.lstrip("/")
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            first, last, code = 0, len(data) - 1, 200
            if asked := self.headers.get("Range"):
                low, _, high = asked.removeprefix("bytes=").partition("-")
                first, last, code = int(low), min(int(high or last), last), 206
            if first > last:
                self.send_error(416)
                return
            self.send_response(code)
            if code == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            self.send_header("Content-Length", str(last + 1 - first))
            self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
            self.end_headers()
            if body:
                self.wfile.write(data[first : last + 1])

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Files) as port:
        yield f"http://127.0.0.1:{port}"


class FaultyProxy:
    """Passes requests on to `endpoint`; the next ones of a kind fail as `faults` says."""

    def __init__(self, endpoint: str) -> None:
        self.host = endpoint.removeprefix("http://")
        self.faults: list[str] = []
        """Taken one per GET or PUT of an object: "503", "reset" in mid-body, "short" body, or "" for none."""
        self.requests = 0
        self.url = ""

    @contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        """Listen on loopback while the block runs."""
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass(self) -> None:
                proxy.requests += 1
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                fault = proxy.faults.pop(0) if proxy.faults and self.command in ("GET", "PUT") else ""
                if fault == "503":
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                upstream = http.client.HTTPConnection(proxy.host, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                data = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                size = int(answer.getheader("Content-Length") or len(data))
                self.send_header("Content-Length", str(size if self.command == "HEAD" else len(data)))
                self.end_headers()
                if fault in ("reset", "short"):
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                    if fault == "reset":
                        self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.wfile.write(data if self.command != "HEAD" else b"")
                upstream.close()

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

            def log_message(self, *_: object) -> None:
                pass

        with _serving(Handler) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self


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


@contextmanager
def _serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
