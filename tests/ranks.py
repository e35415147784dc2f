"""Pretraining on several ranks, cheaply: processes forked from a server that has imported torch and DeepSpeed once.

They are real processes with the environment that a launcher gives them, so they can be killed one by one; what a start
costs, more than ten seconds of imports a rank, is paid once per test session.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["torch", "timm", "deepspeed", "gfm_pipeline.train.run", "torch.utils.tensorboard.writer", "launch.pretrain"]
)


@dataclass
class Ranks:
    """The processes of one attempt at a run, and what they print."""

    processes: list[BaseProcess]
    log: Path

    def pid(self, rank: int) -> int:
        """Return the process id of a rank."""
        found = self.processes[rank].pid
        assert found is not None
        return found

    def signal(self, number: signal.Signals, ranks: Sequence[int] | None = None) -> None:
        """Send a signal to some ranks, or to all."""
        for rank in range(len(self.processes)) if ranks is None else ranks:
            if self.processes[rank].is_alive():
                os.kill(self.pid(rank), number)

    def wait(self, timeout_s: float = 250, launcher: bool = True) -> list[int | None]:
        """Return the exit codes in rank order, negative for a signal.

        With `launcher`, the others are told to end when one has failed, as torchrun and deepspeed do: before ranks have
        met they do not watch each other. Raises AssertionError for ranks that live on after `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        told = False
        while alive := [rank for rank, process in enumerate(self.processes) if process.is_alive()]:
            if launcher and not told and any(process.exitcode not in (None, 0) for process in self.processes):
                self.signal(signal.SIGTERM)
                told = True
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"ranks {alive} live on after {timeout_s:g} s:\n{self.printed()}")
            time.sleep(0.05)
        return [process.exitcode for process in self.processes]

    def kill(self) -> None:
        """End all that are still alive."""
        for process in self.processes:
            if process.is_alive():
                process.kill()
                process.join()

    def printed(self) -> str:
        """Return what all ranks have printed so far."""
        return self.log.read_text(errors="replace")


def start_ranks(size: int, arguments: Sequence[str], log: Path) -> Ranks:
    """Start `launch/pretrain.py` with `arguments` on `size` ranks of this machine, as a launcher would."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log.write_text("")
    processes: list[BaseProcess] = []
    for rank in range(size):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        words = {name: str(value) for name, value in (environment | {"MASTER_PORT": port}).items()}
        process = _CONTEXT.Process(target=_pretrain, args=(words, list(arguments), str(log)), daemon=True)
        process.start()
        processes.append(process)
    return Ranks(processes, log)


def run_ranks(size: int, arguments: Sequence[str], log: Path, code: int = 0, timeout_s: float = 250) -> str:
    """Run to the end, expect every rank to exit with `code`, and return what they printed."""
    ranks = start_ranks(size, arguments, log)
    codes = ranks.wait(timeout_s)
    assert codes == [code] * size, f"exit codes {codes}\n{ranks.printed()}"
    return ranks.printed()


def _pretrain(environment: dict[str, str], arguments: list[str], log: str) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR"):
        os.environ[name] = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}[name]
    os.environ.update(environment, MASTER_ADDR="127.0.0.1", OMP_NUM_THREADS="1")
    os.chdir(ROOT)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.argv = ["pretrain", *arguments]
    from gfm_pipeline.command_line import run
    from launch.pretrain import pretrain

    run(pretrain, "pretrain")
