"""A proxy that passes requests on to a server, makes faults where told to, and counts what went through."""

from __future__ import annotations

import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from tests.serving import serving

STATUS_FAULTS = ("429", "500", "503")
BODY_FAULTS = ("reset", "cut", "short", "stall", "flip", "slow", "trickle")
FAULTS = (*STATUS_FAULTS, *BODY_FAULTS, "silent", "closed")
"""What a request may meet instead of its answer:

429, 500, 503   that status        silent   no answer at all       closed   the connection ends without one
reset, cut      three quarters of the body, then a reset (RST) or an end (FIN); the headers promise all of it
short           three quarters of the body, and headers that promise just that
stall           three quarters of the body, then silence
flip            all of the body, with one bit of it inverted
slow, trickle   all of the body in ten pieces with pauses; a byte at a time
"""


class Passed(NamedTuple):
    """A request that went through the proxy."""

    method: str
    path: str
    range: tuple[int, int] | None
    """(start, length) as asked for."""
    sent: int
    """Bytes of the body that were sent on."""
    fault: str


class FaultyProxy:
    """Stands in front of `endpoint`, http://host:port."""

    def __init__(self, endpoint: str) -> None:
        self.host = endpoint.removeprefix("http://")
        self.faults: list[str] = []
        """Taken one per GET or PUT of an object; "" is none."""
        self.draw: Callable[[str], str] | None = None
        """When `faults` is empty, gives the fault for a path."""
        self.url = ""
        self._passed: list[Passed] = []
        self._under_way = 0
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._closing = threading.Event()

    @property
    def passed(self) -> list[Passed]:
        """The requests so far. A client has its answer before the proxy has counted it: that is waited for."""
        with self._ended:
            self._ended.wait_for(lambda: not self._under_way, timeout=5)  # a stalled one stays under way
            return list(self._passed)

    @property
    def requests(self) -> int:
        return len(self.passed)

    def body_bytes(self, ending: str = "") -> int:
        """Return the bytes of bodies sent on for objects whose path ends so."""
        return sum(one.sent for one in self.passed if one.method == "GET" and one.path.endswith(ending))

    @contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        """Listen on loopback while the block runs."""
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _pass(self) -> None:
                with proxy._counted(), suppress(BrokenPipeError, ConnectionResetError):
                    proxy._handle(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass

            def log_message(self, *_: object) -> None:
                pass

        with serving(Handler) as port:
            self.url = f"http://127.0.0.1:{port}"
            try:
                yield self
            finally:
                self._closing.set()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._under_way += 1
        try:
            yield
        finally:
            with self._ended:
                self._under_way -= 1
                self._ended.notify_all()

    def _next_fault(self, method: str, path: str) -> str:
        if method not in ("GET", "PUT"):
            return ""
        with self._lock:
            if self.faults:
                return self.faults.pop(0)
            return self.draw(path) if self.draw else ""

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = request.path.partition("?")[0]
        fault = self._next_fault(request.command, path)
        sent = 0
        if fault in ("silent", "closed"):
            if fault == "silent":
                self._closing.wait(60)
            request.close_connection = True
        elif fault in STATUS_FAULTS:
            request.send_response(int(fault))
            request.send_header("Content-Length", "0")
            request.end_headers()
        else:
            sent = self._forward(request, body, fault)
        with self._lock:
            self._passed.append(Passed(request.command, path, _asked(request.headers.get("Range")), sent, fault))

    def _forward(self, request: http.server.BaseHTTPRequestHandler, body: bytes, fault: str) -> int:
        upstream = http.client.HTTPConnection(self.host, timeout=60)
        try:
            upstream.request(request.command, request.path, body, dict(request.headers))
            answer = upstream.getresponse()
            data = answer.read()
        finally:
            upstream.close()
        most = data[: -(-3 * len(data) // 4)]
        size = int(answer.getheader("Content-Length") or len(data)) if request.command == "HEAD" else len(data)
        request.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(most) if fault == "short" else size))
        request.end_headers()
        if request.command == "HEAD":
            return 0
        if fault in ("reset", "cut", "short", "stall"):
            request.wfile.write(most)
            self._break_off(request, fault)
            return len(most)
        if fault == "flip" and data:
            data = bytearray(data)
            data[len(data) // 3] ^= 16
        for piece, pause in _pieces(bytes(data), fault):
            request.wfile.write(piece)
            time.sleep(pause)
        return len(data)

    def _break_off(self, request: http.server.BaseHTTPRequestHandler, fault: str) -> None:
        if fault == "short":
            return
        request.wfile.flush()
        request.close_connection = True
        if fault == "stall":
            self._closing.wait(60)
        if fault == "reset":
            time.sleep(0.05)  # a reset may overtake what was sent before it
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()


def _pieces(data: bytes, fault: str) -> Iterator[tuple[bytes, float]]:
    if fault not in ("slow", "trickle") or not data:
        yield data, 0
        return
    size, pause = (-(-len(data) // 10), 0.02) if fault == "slow" else (1, 0.05)
    for begin in range(0, len(data), size):
        yield data[begin : begin + size], pause


def _asked(header: str | None) -> tuple[int, int] | None:
    if not header:
        return None
    low, _, high = header.removeprefix("bytes=").partition("-")
    return int(low), int(high) + 1 - int(low)
