"""What a trained model makes of masked images, in the sensors' own units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gfm_pipeline.config import apply_overrides, parse_config
from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.models.embed import cells_to_pixels
from gfm_pipeline.models.msgfm import MsGFM, SensorImages
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.train.checkpoint import CheckpointState, latest_checkpoint, load_weights, read_state
from gfm_pipeline.train.config import TrainConfig


@dataclass(frozen=True)
class TrainedModel:
    """A run's newest checkpoint in one process."""

    config: TrainConfig
    model: MsGFM
    state: CheckpointState


@dataclass(frozen=True)
class Reconstruction:
    """One image and what the model made of it; images are [C,H,W] in physical units."""

    key: str
    source: SensorSpec
    target: SensorSpec
    source_CHW: NDArray[np.float32]
    mask_ij: NDArray[np.bool_]
    """Cells of the source that the model did not see."""
    predicted_CHW: NDArray[np.float32]
    """Every cell of it was predicted while the same cell of the source was hidden."""
    target_CHW: NDArray[np.float32]


def load_run(run_dir: Path, overrides: tuple[str, ...] = ()) -> TrainedModel:
    """Return the model of the run's newest checkpoint, all experts in this process, ready for inference.

    `overrides` ("data.root=...") change the stored configuration. Raises CheckpointError for a run without one.
    """
    folder = latest_checkpoint(run_dir)
    if folder is None:
        raise CheckpointError(f"{run_dir} holds no checkpoint yet; give the run_dir of a run that has written one.")
    state = read_state(folder)
    config = parse_config(apply_overrides(state.config, overrides), TrainConfig, str(folder / "state.json"))
    model = MsGFM(config.model, state.sensors, config.data.image_px, config.seed)
    load_weights(folder, model)
    return TrainedModel(config, model.eval(), state)


def reconstruct_samples(run: TrainedModel, num_samples: int) -> Iterator[tuple[str, list[Reconstruction]]]:
    """Yield (stream, reconstructions of one direction) for every stream and every ordered pair of its sensors.

    The samples are the first that the run trained on, with the crops and masks they had then.
    """
    mixture = open_mixture(run.config.data)
    collected: dict[tuple[str, str, str], list[Reconstruction]] = {}
    with Loader(mixture, run.config.data, run.config.seed, rank=0, world=1) as loader:
        batches = (lane for lanes in loader for lane in lanes)
        short = set(mixture.streams)
        while short:
            for stream, part in next(batches).streams.items():
                for source in part.images:
                    for target in part.images:
                        rows = collected.setdefault((stream, source, target), [])
                        rows += _reconstruct(run, part, source, target)[: num_samples - len(rows)]
                        if len(rows) == num_samples:
                            short.discard(stream)
    for (stream, _, _), rows in collected.items():
        yield stream, rows


@torch.inference_mode()
def _reconstruct(run: TrainedModel, part: StreamBatch, source: str, target: str) -> list[Reconstruction]:
    image_BCHW, mask_Bij = part.images[source], part.masks[source]
    first, second = (
        run.model.decode(target, run.model.encode([SensorImages(source, image_BCHW, mask)])[0])
        for mask in (mask_Bij, complement(mask_Bij, run.config.seed))
    )
    # The model answers for hidden cells only: the others are asked for with a second mask that hides them.
    hidden_B1HW = cells_to_pixels(mask_Bij, image_BCHW.shape[-1]).bool()
    predicted = _physical(run.state, target, torch.where(hidden_B1HW, first, second))
    source_BCHW = _physical(run.state, source, image_BCHW)
    target_BCHW = _physical(run.state, target, part.images[target])
    sensors = run.state.sensors
    return [
        Reconstruction(
            key=key,
            source=sensors[source],
            target=sensors[target],
            source_CHW=source_BCHW[row],
            mask_ij=mask_Bij[row].numpy(),
            predicted_CHW=predicted[row],
            target_CHW=target_BCHW[row],
        )
        for row, key in enumerate(part.keys)
    ]


def complement(mask_Bij: torch.Tensor, seed: int) -> torch.Tensor:
    """Return masks that hide every visible cell, and as many cells in all as `mask_Bij` (or all the visible ones)."""
    generator = torch.Generator().manual_seed(seed)
    flat = mask_Bij.flatten(1)
    # Rank cells, visible ones first, hidden ones in random order; hide the first of them.
    order = (flat + torch.rand(flat.shape, generator=generator)).argsort(dim=1)
    ranks = order.argsort(dim=1)
    visible = (~flat).sum(1, keepdim=True)
    count = torch.maximum(flat.sum(1, keepdim=True), visible)
    return (ranks < count).reshape(mask_Bij.shape)


def _physical(state: CheckpointState, sensor: str, image_BCHW: torch.Tensor) -> NDArray[np.float32]:
    statistics = state.normalisation[sensor]
    mean, std = (torch.tensor(statistics[name])[:, None, None] for name in ("mean", "std"))
    out: NDArray[np.float32] = (image_BCHW * std + mean).float().numpy()
    return out
