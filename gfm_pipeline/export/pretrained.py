"""Loads an exported model, strictly and in one process. Needs torch, timm and safetensors, and nothing else.

model.safetensors   every parameter by its canonical name, fp32
config.json         format version, sensors, normalisation and what rebuilds the model
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from gfm_pipeline.errors import CheckpointError, ConfigError, nearest
from gfm_pipeline.export.extractor import SensorEncoder
from gfm_pipeline.export.settings import to_settings
from gfm_pipeline.models.msgfm import MsGFM

FORMAT = "gfm-model"
VERSION = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class Pretrained:
    """An exported model."""

    model: MsGFM
    """Ready for inference: embeddings, encoder and decoders; all experts in this process."""
    config: dict[str, Any]
    """config.json."""


def load_pretrained(folder: str | Path, image_px: int | None = None) -> Pretrained:
    """Return the model that `gfm export` wrote to `folder`, for images of `image_px` (as in training, when None).

    Raises CheckpointError for files that are missing, damaged or of another version, and for any parameter that is
    missing, unexpected or of another shape; ConfigError for an image size that the encoder cannot divide.
    """
    folder = Path(folder)
    config = read_config(folder)
    model = build_model(config, image_px)
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {folder / WEIGHTS_FILE}: {error}. Export the model again.") from error
    _check_keys(folder, dict(model.named_parameters()), tensors)
    model.load_state_dict(tensors, strict=True)
    return Pretrained(model.eval(), config)


def load_encoder(
    folder: str | Path, sensors: Sequence[str] = (), image_px: int | None = None, features_only: bool = False
) -> SensorEncoder:
    """Return the encoder of an exported model for `sensors` (all of them, when empty), see `SensorEncoder`.

    Raises what `load_pretrained` raises, and ConfigError for a sensor that the model does not know.
    """
    loaded = load_pretrained(folder, image_px)
    known = loaded.config["sensors"]
    for sensor in sensors:
        if sensor not in known:
            raise ConfigError(f"the model in {folder} knows no sensor '{sensor}'. {nearest(sensor, known)}")
    return SensorEncoder(loaded.model, loaded.config, tuple(sensors) or tuple(known), features_only)


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of an exported model; raise CheckpointError for anything else."""
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"cannot read {path}: {error}. Give a folder that gfm export wrote.") from error
    found = (config.get("format"), config.get("version")) if isinstance(config, dict) else (None, None)
    if found != (FORMAT, VERSION):
        raise CheckpointError(
            f"{path} is of format {found[0]!r}, version {found[1]!r}; this program reads {FORMAT!r}, version {VERSION}."
        )
    return cast(dict[str, Any], config)


def build_model(config: dict[str, Any], image_px: int | None = None) -> MsGFM:
    """Return the untrained model that config.json describes."""
    settings = to_settings({"model": config["model"], "sensors": config["sensors"]})
    sensors = {name: to_settings(spec) for name, spec in config["sensors"].items()}
    # What the classes ask of a checked configuration, these settings have by the same names.
    return MsGFM(cast(Any, settings.model), cast(Any, sensors), image_px or config["image_px"], seed=0)


def _check_keys(folder: Path, expected: dict[str, Any], found: dict[str, Tensor]) -> None:
    """Raise CheckpointError with a line for every parameter that does not fit."""
    lines = [f"missing: {name} {list(expected[name].shape)}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"unexpected: {name} {list(found[name].shape)}" for name in sorted(found.keys() - expected.keys())]
    lines += [
        f"another shape: {name} is {list(found[name].shape)}, expected {list(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    if lines:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} does not fit its {CONFIG_FILE}, {len(lines)} parameters differ:\n  "
            + "\n  ".join(lines)
        )
