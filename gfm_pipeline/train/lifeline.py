"""Ranks that watch each other's lives, so that the loss of one ends the job in seconds and with a reason.

A collective operation whose partner is gone fails late or never: NCCL waits for its timeout, half an hour by default.
So every rank holds a TCP connection to the first one. The kernel closes it when a process dies, however it dies, and
its keep-alive probes notice a machine that is gone; a thread on each rank sees that and passes it on. Nothing is sent
while all is well, so a slow or stopped rank is not taken for a dead one.

Messages are lines of JSON: {"kind": "bye"}, {"kind": "lost", "reason": ...}, {"kind": "hang", "reason": ...}.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gfm_pipeline.errors import TrainingError

if TYPE_CHECKING:  # it imports torch
    from gfm_pipeline.train.comm import World

GRACE_S = 4.0
"""How long a rank may take to end by its own error after another was lost."""
CONNECT_S = 60.0
HELLO_S = 5.0


class Lifeline:
    """This rank's end of the connections; every rank must construct it at the same point."""

    def __init__(self, world: World, on_hang: Callable[[], None]) -> None:
        """`on_hang` is called before this process ends because some rank has found the job hanging."""
        self._rank = world.rank
        self._on_hang = on_hang
        self._peers: dict[socket.socket, int] = {}
        self._names = world.gather(f"{socket.gethostname()}, process {os.getpid()}")
        self._reason: str | None = None
        self._lost = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        if world.size > 1:
            self._connect(world)
            threading.Thread(target=self._watch, name="gfm-lifeline", daemon=True).start()

    def reason(self, timeout_s: float) -> str | None:
        """Return why another rank was lost, or None if none is within `timeout_s`."""
        self._lost.wait(timeout_s)
        return self._reason

    def report_hang(self, reason: str) -> None:
        """Tell all ranks that the job hangs, and end this one."""
        self._tell({"kind": "hang", "reason": reason})
        self._end_hanging(reason)

    def close(self, failure: str | None = None) -> None:
        """Leave: without `failure` in peace, with it as the reason why the others cannot go on."""
        reason = f"rank {self._rank} failed: {failure}"
        self._tell({"kind": "lost", "reason": reason} if failure else {"kind": "bye"})
        self._closing.set()
        with self._lock:
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.shutdown(socket.SHUT_WR)

    def _connect(self, world: World) -> None:
        address = os.environ.get("MASTER_ADDR", "127.0.0.1")
        token = secrets.token_hex(16)
        local = address in ("127.0.0.1", "localhost")
        listener = _listen_at(local) if world.is_first else None
        offer = (listener.getsockname()[1], token) if listener else None
        port, token = world.gather(offer)[0]
        if listener is None:
            try:
                peer = socket.create_connection((address, port), CONNECT_S)
            except OSError as error:
                raise TrainingError(
                    f"rank {world.rank} cannot reach rank 0 at {address}:{port} ({error}). Open the ports between the "
                    "machines to each other, and set MASTER_ADDR to an address that all of them reach."
                ) from error
            peer.sendall(json.dumps({"token": token, "rank": world.rank}).encode() + b"\n")
            self._add(peer, 0)
            return
        with listener:
            listener.settimeout(CONNECT_S)
            while len(self._peers) < world.size - 1:
                try:
                    peer, _ = listener.accept()
                except TimeoutError as error:
                    raise TrainingError(
                        f"only {len(self._peers) + 1} of {world.size} ranks reached {address}:{port} in "
                        f"{CONNECT_S:.0f} s. Open the ports between the machines to each other."
                    ) from error
                hello = _read_hello(peer)
                if secrets.compare_digest(str(hello.get("token")), token):
                    self._add(peer, int(hello["rank"]))
                else:
                    peer.close()

    def _add(self, peer: socket.socket, rank: int) -> None:
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, option):
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        self._peers[peer] = rank

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    if not self._listen(key.fileobj):
                        selector.unregister(key.fileobj)

    def _listen(self, peer: socket.socket) -> bool:
        """Act on what came from a peer; return whether to go on listening to it."""
        rank = self._peers[peer]
        try:
            line = _read_line(peer)
        except OSError:
            line = ""
        if not line:
            reason = (
                f"rank {rank} ({self._names[rank]}) ended without a word: killed, out of memory, or its machine is gone"
            )
            self._lose({"kind": "lost", "reason": reason})
            return False
        message = json.loads(line)
        if message["kind"] == "bye":
            return False
        self._lose(message)
        return True

    def _lose(self, message: dict[str, str]) -> None:
        if self._closing.is_set() or self._lost.is_set():
            return
        self._reason = message["reason"]
        self._lost.set()
        if self._rank == 0:
            self._tell(message)
        if message["kind"] == "hang":
            self._end_hanging(message["reason"])
        if not self._closing.wait(GRACE_S):
            self._say(f"{self._reason}. Run the same command again to continue from the last checkpoint.")
            os._exit(1)

    def _end_hanging(self, reason: str) -> None:
        self._on_hang()
        self._say(reason)
        os._exit(1)

    def _say(self, text: str) -> None:
        print(f"error on rank {self._rank}: {text}", file=sys.stderr, flush=True)

    def _tell(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            for peer in self._peers:
                with contextlib.suppress(OSError):
                    peer.sendall(data)


def _listen_at(local: bool) -> socket.socket:
    """Return a socket that listens on this machine alone, or for other machines at any address of this one."""
    if local:
        return socket.create_server(("127.0.0.1", 0))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def _read_hello(peer: socket.socket) -> dict[str, Any]:
    """Return how a peer introduces itself; empty for a stranger who says nothing of the kind."""
    peer.settimeout(HELLO_S)
    try:
        hello = json.loads(_read_line(peer))
    except (OSError, ValueError):
        return {}
    return hello if isinstance(hello, dict) else {}


def _read_line(peer: socket.socket) -> str:
    """Return a line that a peer has sent, without what follows it; empty at the end of the connection."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < 65536:
        byte = peer.recv(1)
        if not byte:
            return ""
        line += byte
    return line.decode()
