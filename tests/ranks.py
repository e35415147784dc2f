"""Pretraining and `gfm`, cheaply: processes forked from a server that has imported torch and DeepSpeed once.

They are real processes with the environment that a launcher gives them, so they can be killed one by one; what a start
costs, about ten seconds of imports for each process, is paid once per test session.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("torch", "timm", "deepspeed", "gfm_pipeline.train.run", "torch.utils.tensorboard.writer", "launch.pretrain"),
        *("gfm_pipeline.viz.run", "gfm_pipeline.evaluate.run", "gfm_pipeline.evaluate.hook"),
    ]
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


def start_ranks(
    size: int, arguments: Sequence[str], log: Path, each: Sequence[Sequence[str]] = (), program: str = "pretrain"
) -> Ranks:
    """Start `launch/pretrain.py` with `arguments` on `size` ranks of this machine, as a launcher would.

    `each` are further arguments by rank, for ranks that disagree. `program` is another one of launch/.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log.write_text("")
    processes: list[BaseProcess] = []
    for rank in range(size):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        words = {name: str(value) for name, value in (environment | {"MASTER_PORT": port}).items()}
        words["MASTER_ADDR"] = "127.0.0.1"
        told = [*arguments, *(each[rank] if each else ())]
        process = CONTEXT.Process(target=_program, args=(program, told, words, (str(log), str(log))), daemon=True)
        process.start()
        processes.append(process)
    return Ranks(processes, log)


def run_ranks(
    size: int, arguments: Sequence[str], log: Path, code: int = 0, timeout_s: float = 250, program: str = "pretrain"
) -> str:
    """Run to the end, expect every rank to exit with `code`, and return what they printed."""
    ranks = start_ranks(size, arguments, log, program=program)
    codes = ranks.wait(timeout_s)
    assert codes == [code] * size, f"exit codes {codes}\n{ranks.printed()}"
    return ranks.printed()


def run_gfm(*arguments: str | Path, code: int = 0, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
    """Run `gfm` with `arguments` in the project folder and expect the exit code `code`."""
    words = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("out", "err")]
        for path in paths:
            path.touch()
        told = ("gfm", words, {}, tuple(map(str, paths)))
        process = CONTEXT.Process(target=_program, args=told, daemon=True)
        process.start()
        process.join(timeout_s)
        if process.is_alive():
            process.kill()
            process.join()
        out, err = (path.read_text(errors="replace") for path in paths)
    assert process.exitcode == code, f"gfm {' '.join(words)} exited {process.exitcode}\n{out}\n{err}"
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


def _program(name: str, arguments: list[str], environment: dict[str, str], outputs: tuple[str, str]) -> None:
    os.environ.update(environment, CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    os.chdir(ROOT)
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    sys.argv = [name, *arguments]
    from gfm_pipeline.cli import gfm
    from gfm_pipeline.cli.bench import bench
    from gfm_pipeline.command_line import run
    from launch.pretrain import pretrain

    run({"pretrain": pretrain, "bench": bench, "gfm": gfm}[name], name)
