"""Writes a trained model for others: weights, configuration and card, in the layout of a Hugging Face hub folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from gfm_pipeline.errors import UsageError
from gfm_pipeline.export.card import model_card
from gfm_pipeline.export.merge import Merged, merge_experts
from gfm_pipeline.export.pretrained import CONFIG_FILE, FORMAT, VERSION, WEIGHTS_FILE, load_pretrained
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.train.track import read_metrics
from gfm_pipeline.viz.reconstruct import TrainedModel, load_run

CARD_FILE = "README.md"


@dataclass(frozen=True)
class Exported:
    """What was written."""

    folder: Path
    parameters: int
    step: int
    merged: Merged | None


def export_run(
    run_dir: Path, out: Path, overrides: tuple[str, ...] = (), dense: bool = False, batches: int = 8
) -> Exported:
    """Write the newest checkpoint of a run to the new folder `out`; read back and compared before it appears.

    `dense` makes one expert of the several of each layer (see `merge`), measured on `batches` batches of the run's
    own streams. Raises UsageError when `out` exists, CheckpointError for a run without a checkpoint.
    """
    if out.exists():
        raise UsageError(f"{out} exists already; give a new folder, or remove it.")
    run = load_run(run_dir, overrides)
    model, merged = (run.model, None) if not dense else merge_experts(run, batches)
    config = model_config(run, merged)
    temporary = out.with_name(f".tmp-{out.name}-{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        tensors = {name: value.detach().contiguous() for name, value in _exported(model)}
        save_file(tensors, temporary / WEIGHTS_FILE, {"format": "pt", "gfm": f"{FORMAT}-{VERSION}"})
        (temporary / WEIGHTS_FILE).chmod(0o644)
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        card = model_card(run, config, merged, read_metrics(run_dir))
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
        _compare(model, load_pretrained(temporary).model)
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary)
        raise
    return Exported(out, sum(value.numel() for value in tensors.values()), run.state.step, merged)


def model_config(run: TrainedModel, merged: Merged | None) -> dict[str, Any]:
    """Return config.json of a run's model."""
    model = run.config.model.model_dump(mode="json")
    model["encoder"]["init"] = None  # a path of the training machine; the weights are in the file
    encoder = run.config.model.encoder
    model["encoder"] |= {
        # At another image size the windows are others; the biases stay functions of distances in these.
        "pretrained_window": list(encoder.pretrained_window or encoder.stage_windows(run.config.data.image_px)),
        "stride_px": encoder.stride_px,
        "num_features": encoder.num_features,
    }
    if merged is not None:
        model["moe"]["num_experts"] = 1
    return {
        "format": FORMAT,
        "version": VERSION,
        "image_px": run.config.data.image_px,
        "model": model,
        "sensors": {
            name: spec.model_dump(mode="json") | {"nodata_values": list(run.state.nodata.get(name, ()))}
            for name, spec in run.state.sensors.items()
        },
        "normalisation": run.state.normalisation,
        "merged_experts": None if merged is None else merged.described(),
        "trained": {"steps": run.state.step, "collections": run.state.manifests},
    }


def _exported(model: MsGFM) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the model's parameters, without what objectives trained beside it."""
    return ((name, value) for name, value in model.named_parameters() if not name.startswith("objectives."))


def _compare(model: MsGFM, loaded: MsGFM) -> None:
    theirs = dict(loaded.named_parameters())
    for name, value in _exported(model):
        assert value.equal(theirs[name]), f"{name} was not written as it is"
