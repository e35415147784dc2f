"""What is to run, checked before anything is started.

A job that cannot work (a world size that does not divide the lanes, experts that the processes cannot share, a
collection that is not there) is refused on the machine where it is launched, not on the GPUs it would have waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gfm_pipeline.config import load_config
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.topology import check_topology

TRAINER = "launch.pretrain"
"""The module that every process runs."""
RENDEZVOUS_PORT = 29500


@dataclass(frozen=True)
class Job:
    """A checked run of `nodes` machines with `per_node` processes each."""

    config: TrainConfig
    path: Path
    """The configuration's file, absolute."""
    overrides: tuple[str, ...]
    nodes: int
    per_node: int
    on_cpu: bool
    exports: Mapping[str, str]
    """Environment variables that every process gets."""

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.nodes * self.per_node

    @property
    def name(self) -> str:
        """A name for schedulers: letters, digits and hyphens."""
        kept = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in self.path.stem.lower())
        return f"gfm-{kept.strip('-') or 'run'}"[:50].rstrip("-")

    @property
    def cpus(self) -> int:
        """CPUs of a machine: for every process its loader's threads, the step, and what talks to the other ranks."""
        return self.per_node * (self.config.data.threads + 2)

    @property
    def memory_mb(self) -> int:
        """Memory of a machine in MiB: for every process what its loader may hold, and as much for all else."""
        return self.per_node * 2 * self.config.data.buffer_mb

    def arguments(self) -> list[str]:
        """Return the trainer's arguments."""
        return ["--config", str(self.path), *(word for text in self.overrides for word in ("--set", text))]


def prepare_job(
    path: Path,
    overrides: tuple[str, ...],
    nodes: int,
    per_node: int,
    on_cpu: bool,
    exports: Mapping[str, str],
    elsewhere: str | None = None,
) -> Job:
    """Return the job; raise ConfigError, naming every problem, when its processes could not train together.

    Collections in the folder `elsewhere`, which this machine does not see, are not looked at.
    """
    config = load_config(path, TrainConfig, overrides)
    unseen = elsewhere is not None and f"{config.data.root}/".startswith(f"{elsewhere}/")
    problems = check_topology(config, nodes * per_node, per_node, with_data=not unseen)
    if problems:
        raise ConfigError(f"{path} cannot run on {nodes * per_node} processes: {' '.join(problems)}")
    fixed = {"DS_ACCELERATOR": "cpu"} if on_cpu else {}
    return Job(config, path.resolve(), overrides, nodes, per_node, on_cpu, {**fixed, **exports})
