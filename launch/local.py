"""A run on this machine: torchrun, watched by a process that hands signals on and starts it again.

A signal to stop (SIGTERM, SIGINT or SIGUSR1) goes to torchrun as SIGTERM, which hands it to every process; they write
a checkpoint and end. DeepSpeed's own launcher would die of the signal and leave the processes running.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from gfm_pipeline.storage import open_store
from gfm_pipeline.train.outcome import REQUEUE_CODE
from launch.job import TRAINER, Job

SHUTDOWN_SECONDS = 600
"""Time that processes have for a checkpoint when they are told to stop."""
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def local_command(job: Job) -> tuple[dict[str, str], list[str]]:
    """Return the environment to add and the command."""
    threads = max(1, (os.cpu_count() or 1) // job.per_node)
    environment = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
        **job.exports,
    }
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(job.per_node)),
        *("-m", TRAINER, *job.arguments()),
    ]
    return environment, words


def describe(environment: Mapping[str, str], words: list[str]) -> str:
    """Return what is run, as a user would type it."""
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in environment.items()), shlex.join(words)])


def supervise(job: Job, environment: Mapping[str, str], words: list[str], restarts: int) -> int:
    """Run the command until it ends well, is told to stop, or has failed `restarts` + 1 times; return its exit code.

    A failure is not followed by another try when no checkpoint was written since the one before: it would fail again.
    """
    stopped = _forward_signals()
    before = _latest(job)
    for left in range(restarts, -1, -1):
        code = _run(environment, words, stopped)
        after = _latest(job)
        if code == 0 or stopped or not left:
            break
        if left < restarts and after == before:
            _tell(f"failed again with exit code {code} and no checkpoint in between; not started again.")
            break
        before = after
        _tell(
            f"failed with exit code {code}; starting again from {after or 'the beginning'} ({left - 1} restarts left)."
        )
        time.sleep(1)
    return REQUEUE_CODE if stopped and code else code


def _forward_signals() -> list[int]:
    """Collect signals to stop in the list that is returned; `_run` hands them on."""
    stopped: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        stopped.append(number)

    for number in _STOPPING:
        signal.signal(number, note)
    return stopped


def _run(environment: Mapping[str, str], words: list[str], stopped: list[int]) -> int:
    # A session of its own: Ctrl-C in a terminal would reach every process at once, and twice.
    process = subprocess.Popen(words, env={**os.environ, **environment}, start_new_session=True)  # noqa: S603
    handed_on = 0
    while True:
        try:
            return process.wait(0.5)
        except subprocess.TimeoutExpired:
            pass
        if len(stopped) > handed_on:
            first, handed_on = not handed_on, len(stopped)
            _tell("stopping: writing a checkpoint (again to end at once)." if first else "ending at once.")
            if first:
                process.terminate()
            else:
                os.killpg(process.pid, signal.SIGKILL)


def _latest(job: Job) -> str | None:
    config = job.config
    store = open_store(config.checkpoint.url or str(Path(config.run_dir) / "checkpoints"), config.data.storage)
    return store.get("latest").decode().strip() if store.exists("latest") else None


def _tell(text: str) -> None:
    print(f"gfm-launch: {text}", file=sys.stderr, flush=True)
