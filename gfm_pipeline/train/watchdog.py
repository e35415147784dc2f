"""A deadline for every phase of a run: one that takes longer hangs, and then shows where.

Ranks that wait for each other wait together, so the first to notice tells all, and each writes the stacks of its
threads into the run folder. Should a thread hold the interpreter's lock, no Python code runs any more: faulthandler's
own timer, which needs no lock, then writes the stacks and ends the process a little later.
"""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

EXTRA_S = 20.0
"""What faulthandler's timer waits beyond the deadline."""


class Watchdog:
    """Calls `alarm` with the reason when a phase has lasted `deadline_s` seconds; None: never."""

    def __init__(self, deadline_s: float | None, stacks: Path, alarm: Callable[[str], None]) -> None:
        self._deadline_s = deadline_s
        self._path = stacks
        self._alarm = alarm
        self._phase = ("start", time.monotonic())
        self._closed = threading.Event()

    def beat(self, phase: str) -> None:
        """Say that a phase begins; the clock starts anew."""
        self._phase = (phase, time.monotonic())
        if self._deadline_s is not None:
            faulthandler.dump_traceback_later(self._deadline_s + EXTRA_S, file=self._file, exit=True)

    def dump(self) -> None:
        """Write the stacks of all threads of this process to the file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            phase, since = self._phase
            file.write(f"--- in '{phase}' for {time.monotonic() - since:.1f} s\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)

    def __enter__(self) -> Watchdog:
        if self._deadline_s is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8")
            self.beat("start")
            threading.Thread(target=self._watch, name="gfm-watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self._deadline_s is not None:
            faulthandler.cancel_dump_traceback_later()
            self._file.close()
            if not self._path.stat().st_size:
                self._path.unlink()

    def _watch(self) -> None:
        assert self._deadline_s is not None
        while not self._closed.wait(min(1.0, self._deadline_s / 4)):
            phase, since = self._phase
            if time.monotonic() - since > self._deadline_s:
                self._alarm(
                    f"'{phase}' has not ended in {self._deadline_s:g} s: the job hangs. The stacks of every rank are "
                    f"in {self._path.parent}/stacks-*.txt. Raise health.deadline_s if the step is only slow."
                )
                return
