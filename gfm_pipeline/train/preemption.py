"""SIGTERM and SIGUSR1 as a request: save a checkpoint at the end of this step, then end so that the job is requeued.

Python runs signal handlers in the main thread between two instructions, and that thread may sit in a collective for
long; so a thread of its own reads the numbers that the interpreter's C handler writes to a pipe. The second request
ends the process at once. What follows within REPEAT_S is the same request: launchers pass a signal on, and the
deepspeed launcher does so twice within a tenth of a second.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

REPEAT_S = 3.0
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption:
    """While entered, and in the main thread, the two signals are requests."""

    def __init__(self, rank: int) -> None:
        self.requested: str | None = None
        """Name of the first signal that came."""
        self._rank = rank
        self._since = 0.0
        self._previous: dict[signal.Signals, Any] = {}
        self._ends: tuple[int, int] | None = None
        self._previous_fd = -1

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():
            read_end, write_end = os.pipe()
            os.set_blocking(write_end, False)
            self._ends = (read_end, write_end)
            self._previous_fd = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
            self._previous = {number: signal.signal(number, _ignore) for number in SIGNALS}
            threading.Thread(target=self._listen, args=(read_end,), name="gfm-signals", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ends:
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._previous_fd)
            os.close(self._ends[1])

    def _listen(self, read_end: int) -> None:
        while data := os.read(read_end, 64):
            for number in data:
                if number in SIGNALS:
                    self._take(signal.Signals(number))
        os.close(read_end)

    def _take(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self.requested is None:
            self.requested, self._since = number.name, now
            self._say(f"{number.name}: saving a checkpoint after this step; a second signal ends at once.")
        elif now - self._since > REPEAT_S:
            self._say(f"{number.name} again: ending at once, without a checkpoint.")
            os._exit(128 + number)

    def _say(self, text: str) -> None:
        if self._rank == 0:
            print(text, file=sys.stderr, flush=True)


def _ignore(number: int, frame: FrameType | None) -> None:
    """Take the place of the default action; the pipe has the number already."""
