"""The batches of a rank as a dataset for torch's DataLoader, with 0 or more worker processes, or for torchdata's
StatefulDataLoader, whose protocol (`state_dict`, `load_state_dict`) its iterators speak.

    loader = DataLoader(BatchDataset(config, seed=0, rank=0, world=1), batch_size=None, num_workers=2,
                        multiprocessing_context="forkserver")

Training needs none of this: `Loader` has threads. It is for programs that are built around a DataLoader. An item is
the batch of one lane; the items of a step follow each other, lane after lane, in the same order with any number of
workers. Everything is opened in the process that reads: a dataset holds its settings alone, and pickles as such.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Mapping
from multiprocessing.context import ForkProcess
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from gfm_pipeline.data.batch import HeterogeneousBatch
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import Mixture, make_plan, open_mixture
from gfm_pipeline.data.state import LoaderState
from gfm_pipeline.data.workers import worker_lanes
from gfm_pipeline.errors import PlanError, UsageError


class BatchDataset(IterableDataset[HeterogeneousBatch]):
    """The steps of one rank, endless or `steps` of them from `start_step` on; each worker serves lanes of its own."""

    def __init__(
        self, config: DataConfig, seed: int, rank: int, world: int, start_step: int = 0, steps: int | None = None
    ) -> None:
        self.config, self.seed, self.rank, self.world = config, seed, rank, world
        self.start_step, self.steps = start_step, steps
        self._state: dict[str, Any] | None = None

    def __iter__(self) -> BatchIterator:
        return BatchIterator(self, self._state)

    def state(self, step: int) -> dict[str, Any]:
        """Return the state of a job that has taken `step` optimizer steps, good at any world size and worker count."""
        return LoaderState.of(make_plan(open_mixture(self.config), self.config, self.seed), step).to_dict()

    def state_dict(self) -> dict[str, Any]:
        """Return where the next iterator begins."""
        return self._state or {"step": self.start_step}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Let the next iterator begin where `state_dict`, of `state` or of an iterator, was taken.

        The iterator raises PlanError when it belongs to another order.
        """
        self._state = None if list(state_dict) == ["step"] else dict(state_dict)


class BatchIterator:
    """The lanes of one worker, step after step. A step is read when its first batch is asked for."""

    def __init__(self, dataset: BatchDataset, state: Mapping[str, Any] | None) -> None:
        """Open the collections; raise PlanError for a `state` of another order."""
        self._dataset = dataset
        self._loader: Loader | None = None
        worker = get_worker_info()
        self._mixture = open_mixture(dataset.config)
        refuse_fork(self._mixture)
        self._plan = make_plan(self._mixture, dataset.config, dataset.seed)
        lanes = self._plan.rank_lanes(dataset.rank, dataset.world)
        self._lanes = worker_lanes(lanes, worker.id, worker.num_workers) if worker else list(lanes)
        self._step, self._taken = dataset.start_step, 0
        self._ready: deque[HeterogeneousBatch] = deque()
        if state is not None:
            self.load_state_dict(state)

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> HeterogeneousBatch:
        """Return the next lane's batch."""
        dataset = self._dataset
        ended = dataset.steps is not None and self._step >= dataset.start_step + dataset.steps
        if ended or not self._lanes:
            self.close()
            raise StopIteration
        if not self._ready:
            self._ready.extend(next(self._open()))
            for _ in range(self._taken):
                self._ready.popleft()
        batch = self._ready.popleft()
        self._taken += 1
        if not self._ready:
            self._step, self._taken = self._step + 1, 0
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return where the next batch is: step, lanes of it that are done, and of which lanes that was said."""
        return LoaderState.of(self._plan, self._step).to_dict() | {"taken": self._taken, "lanes": self._lanes}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; to be called before the first batch.

        Raises PlanError for the state of another order, or one in mid-step of another number of ranks or workers.
        """
        if self._loader is not None:
            raise RuntimeError("batches have been taken from this iterator; load the state into a new one")
        self._step = LoaderState.from_dict(dict(state_dict)).resume_step(self._plan)
        self._taken = int(state_dict.get("taken", 0))
        if self._taken and state_dict.get("lanes") != self._lanes:
            raise PlanError(
                f"the saved position is in the middle of step {self._step}, after {self._taken} of the lanes "
                f"{state_dict.get('lanes')}; this worker serves {self._lanes}. Resume with as many ranks and workers "
                "as there were, or from a state that was saved between two steps."
            )

    def close(self) -> None:
        """Stop the threads; closing again does nothing."""
        if self._loader is not None:
            self._loader.close()

    def __del__(self) -> None:
        self.close()  # a DataLoader drops its iterators without a word

    def _open(self) -> Loader:
        if self._loader is None:
            dataset = self._dataset
            self._loader = Loader(
                self._mixture, dataset.config, dataset.seed, dataset.rank, dataset.world, self._step, self._lanes
            )
        return self._loader


def refuse_fork(mixture: Mixture) -> None:
    """Raise UsageError in a forked process when a store is remote: its client hangs if the parent has used one."""
    remote = [
        ref.store.url
        for stream in mixture.streams.values()
        for ref in stream.shards
        if ref.store.local_path("") is None
    ]
    if remote and isinstance(multiprocessing.current_process(), ForkProcess):
        raise UsageError(
            f"{remote[0]} is read by a forked worker, where clients of object stores hang. Give the DataLoader "
            'multiprocessing_context="forkserver" or "spawn".'
        )
