"""What a trained model makes of masked images, in the sensors' own units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gfm_pipeline.config import apply_overrides, load_config, parse_config
from gfm_pipeline.data.batch import StreamBatch
from gfm_pipeline.data.loader import Loader
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.data.normalize import Normalisation
from gfm_pipeline.errors import CheckpointError
from gfm_pipeline.models.msgfm import MsGFM, SensorImages
from gfm_pipeline.models.reconstruct import reconstruct_whole
from gfm_pipeline.sensors import SensorSpec
from gfm_pipeline.storage import Store, open_store
from gfm_pipeline.train.checkpoint import (
    CONFIG_FILE,
    FOLDER,
    SCRATCH,
    STATE,
    CheckpointState,
    load_weights,
    read_state,
)
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.load import latest_name, on_this_machine


@dataclass(frozen=True)
class TrainedModel:
    """A run's newest checkpoint in one process."""

    config: TrainConfig
    model: MsGFM
    state: CheckpointState


@dataclass(frozen=True)
class Reconstruction:
    """One image and what the model made of it; images are [C,H,W] in physical units, NaN where nothing was measured.

    What was predicted for such a pixel is NaN, too: there is nothing to compare it with.
    """

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

    The checkpoint is looked for where the run's own config.yaml has them written. `overrides` ("data.root=...") change
    the stored configuration; at another `data.image_px` position biases stay those of training. Raises CheckpointError
    for a run without one.
    """
    store = _checkpoints_of(run_dir, overrides)
    name = latest_name(store)
    if name is None:
        raise CheckpointError(f"{store.url} holds no checkpoint yet; give the run_dir of a run that has written one.")
    with on_this_machine(store, name, run_dir / SCRATCH) as folder:
        state = read_state(folder)
        origin = f"{store.url}/{name}/{STATE}"
        config = parse_config(apply_overrides(state.config, overrides), TrainConfig, origin)
        if overrides:
            config = _read_as_trained(config, parse_config(state.config, TrainConfig, origin))
        model = MsGFM(config.model, state.sensors, config.data.image_px, config.seed)
        load_weights(folder, model)
    return TrainedModel(config, model.eval(), state)


def _read_as_trained(config: TrainConfig, trained: TrainConfig) -> TrainConfig:
    """Return `config`, whose images or windows may be of another size, with position biases as they were learned."""
    encoder, before = config.model.encoder, trained.model.encoder
    windows = before.pretrained_window or before.stage_windows(trained.data.image_px)
    if encoder.pretrained_window or encoder.stage_windows(config.data.image_px) == windows:
        return config
    model = config.model.model_copy(update={"encoder": encoder.model_copy(update={"pretrained_window": windows})})
    return config.model_copy(update={"model": model})


def _checkpoints_of(run_dir: Path, overrides: tuple[str, ...]) -> Store:
    path = run_dir / CONFIG_FILE
    if not path.exists():
        return open_store(str(run_dir / FOLDER))
    config: TrainConfig = load_config(path, TrainConfig, overrides)
    return open_store(config.checkpoint.url or str(run_dir / FOLDER), config.data.storage)


def reconstruct_samples(run: TrainedModel, num_samples: int) -> Iterator[tuple[str, list[Reconstruction]]]:
    """Yield (stream, reconstructions of one direction) for every stream and every ordered pair of its sensors.

    The samples are the first that the run trained on, with the crops and masks they had then.
    """
    mixture = open_mixture(run.config.data)
    statistics = {
        sensor: Normalisation(mean=tuple(moments["mean"]), std=tuple(moments["std"]))
        for sensor, moments in run.state.normalisation.items()
    }
    collected: dict[tuple[str, str, str], list[Reconstruction]] = {}
    with Loader(mixture, run.config.data, run.config.seed, rank=0, world=1) as loader:
        batches = (lane for lanes in loader for lane in lanes)
        short = set(mixture.streams)
        while short:
            for stream, part in next(batches).streams.items():
                for source in part.images:
                    for target in part.images:
                        rows = collected.setdefault((stream, source, target), [])
                        found = reconstruct_batch(
                            run.model, run.state.sensors, statistics, part, source, target, run.config.seed
                        )
                        rows += found[: num_samples - len(rows)]
                        if len(rows) == num_samples:
                            short.discard(stream)
    for (stream, _, _), rows in collected.items():
        yield stream, rows


@torch.inference_mode()
def reconstruct_batch(
    model: MsGFM,
    sensors: Mapping[str, SensorSpec],
    statistics: Mapping[str, Normalisation],
    part: StreamBatch,
    source: str,
    target: str,
    seed: int,
) -> list[Reconstruction]:
    """Return what the model makes of the samples of a batch in one direction; all tensors on one device."""
    image_BCHW, mask_Bij = part.images[source], part.masks[source]
    whole_BCHW = reconstruct_whole(model, SensorImages(source, image_BCHW, mask_Bij), [target], seed)[target]
    predicted = _physical(statistics[target], whole_BCHW, part.valid.get(target))
    source_BCHW = _physical(statistics[source], image_BCHW, part.valid.get(source))
    target_BCHW = _physical(statistics[target], part.images[target], part.valid.get(target))
    return [
        Reconstruction(
            key=key,
            source=sensors[source],
            target=sensors[target],
            source_CHW=source_BCHW[row],
            mask_ij=mask_Bij[row].cpu().numpy(),
            predicted_CHW=predicted[row],
            target_CHW=target_BCHW[row],
        )
        for row, key in enumerate(part.keys)
    ]


def _physical(
    statistics: Normalisation, image_BCHW: torch.Tensor, valid_BCHW: torch.Tensor | None
) -> NDArray[np.float32]:
    mean, std = (torch.from_numpy(column) for column in statistics.columns())
    out: NDArray[np.float32] = (image_BCHW.cpu() * std + mean).float().numpy()
    if valid_BCHW is not None:
        out[~valid_BCHW.cpu().numpy()] = np.nan
    return out
