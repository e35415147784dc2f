"""The process group, and the few collective operations that training needs beside DeepSpeed's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch

from gfm_pipeline.errors import ConfigError, TrainingError


@dataclass(frozen=True)
class World:
    """Who this process is."""

    rank: int
    size: int
    device: torch.device
    per_node: int | None = None
    """Ranks on this machine, where the launcher says so."""
    group: Any = None
    """Process group for what is not training: on the CPU, whatever the device."""

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """Return the picklable `value` of every rank, in rank order; every rank must call it."""
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value, group=self.group)
        return values

    def barrier(self) -> None:
        """Wait for every rank."""
        torch.distributed.barrier(group=self.group)

    def exchange(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all ranks of a few numbers on the CPU; every rank must call it."""
        sums = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(sums, group=self.group)
        return sums.tolist()

    def with_own_group(self) -> World:
        """Return this world with another group, for a second thread to use; every rank must call it."""
        return replace(self, group=_cpu_group())

    def take_from_first(self, values: torch.Tensor) -> None:
        """Set a tensor to the first rank's; every rank must call it."""
        if self.size > 1:
            raw = values.detach().contiguous().reshape(-1).view(torch.uint8)  # not every type can be sent
            torch.distributed.broadcast(raw, 0)
            values.data.copy_(raw.view(values.dtype).reshape(values.shape))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the elementwise sum of a tensor over all ranks."""
        torch.distributed.all_reduce(values)
        return values


def start_world() -> World:
    """Join the process group that the launcher describes in the environment; a lone process is a world of one.

    Raises ConfigError when the launcher's environment is incomplete.
    """
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    launched = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name in os.environ]
    if not launched:
        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    elif len(launched) < 4:
        raise ConfigError(
            f"the environment sets {', '.join(launched)} but not all of RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT: "
            "start with deepspeed, torchrun, or none of them set."
        )
    cuda = get_accelerator().device_name() == "cuda"  # DS_ACCELERATOR=cpu leaves the GPUs alone
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        torch.cuda.set_device(local_rank)
    deepspeed.init_distributed("nccl" if cuda else "gloo", auto_mpi_discovery=False, verbose=False)
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    per_node = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE")  # torchrun's word and deepspeed's
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return World(rank, size, device, int(per_node) if per_node else None, _cpu_group())


def _cpu_group() -> Any:
    # Waiting has no end here: the watchdog and the lifeline know better when a job has come to one.
    return torch.distributed.new_group(backend="gloo", timeout=timedelta(days=7))


def stop_world() -> None:
    """Leave the process group."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def assert_equal_on_all_ranks(world: World, what: str, value: Any) -> None:
    """Raise TrainingError on every rank unless all ranks hold an equal `value`.

    Ranks that disagree about streams, shapes or configuration would mismatch the experts' all-to-all: they would
    hang or, worse, train on each other's tokens.
    """
    values = world.gather(value)
    for rank, other in enumerate(values):
        if other != values[0]:
            raise TrainingError(
                f"rank {rank} has another {what} than rank 0: {_difference(values[0], other)}. "
                "Start every rank with the same configuration, code and collections."
            )


def _difference(first: Any, other: Any) -> str:
    if isinstance(first, dict) and isinstance(other, dict):
        key = next(key for key in [*first, *other] if first.get(key) != other.get(key))
        return f"{key} is {other.get(key)!r} instead of {first.get(key)!r}"
    return f"{other!r} instead of {first!r}"
