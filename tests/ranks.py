"""Pretraining, `gfm` and `shard-builder`, cheaply: processes forked from a server that has imported what they need.

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
# Here alone: there is one server for all, and the last list would replace the others.
CONTEXT.set_forkserver_preload(
    [
        *("torch", "timm", "deepspeed", "gfm_pipeline.train.run", "torch.utils.tensorboard.writer", "launch.pretrain"),
        *("gfm_pipeline.viz.run", "gfm_pipeline.evaluate.run", "gfm_pipeline.evaluate.hook"),
        # What DeepSpeed imports when it is given an optimizer: all of torch's compiler, four seconds.
        *("deepspeed.runtime.zero.muon.muon_optimizer", "torch.utils.cpp_extension"),
        *("shard_builder.build.build", "shard_builder.cli.build", "shard_builder.cli.verify", "tifffile", "shapely"),
        *("gfm_pipeline.data.tar_samples", "tests.loader_life"),
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
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
        environment = {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
        process = _start(program, [*arguments, *(each[rank] if each else ())], log, log, environment)
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
    done = run_program("gfm", [str(argument) for argument in arguments], timeout_s)
    assert done.returncode == code, f"gfm {' '.join(done.args)} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def run_program(name: str, arguments: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run one of the commands in the project folder, with the environment of this moment, and return what it said.

    Raises subprocess.TimeoutExpired for one that has not ended in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        process = _start(name, arguments, out, err, {})
        process.join(timeout_s)
        late = process.is_alive()
        if late:
            process.kill()
            process.join()
        printed = [path.read_text(errors="replace") for path in (out, err)]
    if late:
        raise subprocess.TimeoutExpired([name, *arguments], timeout_s, *printed)
    assert process.exitcode is not None
    return subprocess.CompletedProcess(list(arguments), process.exitcode, *printed)


def _start(name: str, arguments: Sequence[str], out: Path, err: Path, environment: dict[str, str]) -> BaseProcess:
    for path in (out, err):
        path.touch()
    told = (name, list(arguments), {**os.environ, **environment}, (str(out), str(err)))
    process = CONTEXT.Process(target=_program, args=told, daemon=name != "shard-builder")  # which has processes too
    process.start()
    return process


def _program(name: str, arguments: list[str], environment: dict[str, str], outputs: tuple[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment, CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    os.chdir(ROOT)
    for descriptor, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), descriptor)
    sys.argv = [name, *arguments]
    from deepspeed import ops

    from gfm_pipeline.cli import gfm
    from gfm_pipeline.cli.bench import bench
    from gfm_pipeline.command_line import run
    from launch.pretrain import pretrain
    from shard_builder.cli import main

    # Ranks that add through shared memory wait for each other in loops: with more ranks than cores, all crawl. Without
    # it they add through sockets, the same sums of two. Runs under a real launcher have it.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False

    if name == "shard-builder":
        main()
    else:
        run({"pretrain": pretrain, "bench": bench, "gfm": gfm}[name], name)
