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

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from gfm_pipeline.errors import CheckpointError, ConfigError, nearest
from gfm_pipeline.export.extractor import SensorEncoder
from gfm_pipeline.export.settings import Damaged, Settings, anchors, completed, model_settings, trained_windows
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
    path = folder / WEIGHTS_FILE
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot read {path}: {error}. Export the model again.") from error
    if metadata.get("gfm", f"{FORMAT}-{VERSION}") != f"{FORMAT}-{VERSION}":
        raise CheckpointError(
            f"{path} says it is {metadata['gfm']}, its {CONFIG_FILE} {FORMAT}-{VERSION}: they are not of one export."
        )
    outline = anchors(config)  # before anything of the size that config.json names is made
    _check_keys(folder, outline, {name: tensors[name] for name in outline.keys() & tensors.keys()})
    try:
        model = build_model(config, image_px)
    except (RuntimeError, MemoryError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE} describes no model that can be made here: {error}") from error
    _check_keys(folder, {name: tuple(value.shape) for name, value in model.named_parameters()}, tensors)
    model.load_state_dict(tensors, strict=True)
    return Pretrained(model.eval(), config)


def load_encoder(
    folder: str | Path, sensors: str | Sequence[str] = (), image_px: int | None = None, features_only: bool = False
) -> SensorEncoder:
    """Return the encoder of an exported model for `sensors` (all of them, when empty), see `SensorEncoder`.

    Raises what `load_pretrained` raises, and ConfigError for a sensor that the model does not know.
    """
    loaded = load_pretrained(folder, image_px)
    known = loaded.config["sensors"]
    sensors = (sensors,) if isinstance(sensors, str) else sensors
    for sensor in sensors:
        if sensor not in known:
            raise ConfigError(f"the model in {folder} knows no sensor '{sensor}'. {nearest(sensor, known)}")
    return SensorEncoder(loaded.model, loaded.config, tuple(sensors) or tuple(known), features_only)


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of an exported model, options that it does not name filled in with training's defaults.

    Raises CheckpointError for anything that is not what `gfm export` writes, and names the entry.
    """
    path = folder / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {path}: {error}. Give a folder that gfm export wrote.") from error
    found = (config.get("format"), config.get("version")) if isinstance(config, dict) else (None, None)
    if found != (FORMAT, VERSION) or type(found[1]) is not int:
        raise CheckpointError(
            f"{path} is of format {found[0]!r}, version {found[1]!r}; this program reads {FORMAT!r}, version {VERSION}."
        )
    try:
        return completed(config)
    except Damaged as error:
        raise CheckpointError(
            f"{path}: {str(error).rstrip('.')}. Export the model again, or use the program that wrote it."
        ) from None


def build_model(config: dict[str, Any], image_px: int | None = None) -> MsGFM:
    """Return the untrained model that config.json, as `read_config` returns it, describes.

    For another size than that of training the position biases are read on the scale of training's windows.
    """
    if image_px is not None and (type(image_px) is not int or image_px < 1):
        raise ConfigError(f"image_px is {image_px!r}, expected the side of the images in pixels.")
    # What the classes ask of a checked configuration, these settings have by the same names.
    settings = model_settings(config, trained_windows(config))
    sensors = {name: Settings(**spec) for name, spec in config["sensors"].items()}
    size = config["image_px"] if image_px is None else image_px
    return MsGFM(cast(Any, settings), cast(Any, sensors), size, seed=0)


def _check_keys(folder: Path, expected: dict[str, tuple[int, ...]], found: dict[str, Tensor]) -> None:
    """Raise CheckpointError with a line for every parameter that does not fit; `expected` are shapes."""
    lines = [f"missing: {name} {list(expected[name])}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"unexpected: {name} {list(found[name].shape)}" for name in sorted(found.keys() - expected.keys())]
    lines += [
        f"another type: {name} holds {found[name].dtype}, expected numbers with fractions"
        for name in sorted(expected.keys() & found.keys())
        if not found[name].is_floating_point()
    ]
    lines += [
        f"another shape: {name} is {list(found[name].shape)}, expected {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name]
    ]
    if lines:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE} does not fit its {CONFIG_FILE}, {len(lines)} parameters differ:\n  "
            + "\n  ".join(lines)
        )
