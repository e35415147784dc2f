"""A frozen model of timm that looks at colour images, for objectives that learn from one.

It is no part of the trained model: nothing here is registered in a module, so no optimiser, checkpoint or gradient
reduction finds it. Its weights come from a local file, strictly; nothing is downloaded unless that is asked for.

Legend: B images, H x W pixels, i x j patches, D channels.
"""

from __future__ import annotations

import difflib
import logging
import pickle
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.seeding import seeded

RANDOM = "random"

_log = logging.getLogger(__name__)


class Teacher:
    """The timm model `name`, with weights from the file `weights`, or `RANDOM`; None downloads timm's.

    `image_px` is the side of the images it sees; None: that of its own training. Raises ConfigError for an unknown
    name, a file that cannot be read, or weights of another model.
    """

    def __init__(self, name: str, weights: str | None, image_px: int | None, device: torch.device) -> None:
        self.name = name
        model: Any = _create(name, weights, image_px)
        config: dict[str, Any] = model.pretrained_cfg
        self.image_px: int = image_px or config["input_size"][-1]
        self._model = model.eval().requires_grad_(False).to(device)
        self._mean, self._std = (torch.tensor(config[key], device=device)[:, None, None] for key in ("mean", "std"))

    def stage(self, colours_B3HW: Tensor, index: int) -> Tensor:
        """Return the features [B,i,j,D] after a stage (or block), counted as a Python index: -1 is the last one.

        `colours_B3HW` holds red, green and blue from 0 to 1, as in all methods.
        """
        with torch.no_grad():
            (features_BDij,) = self._model.forward_intermediates(
                self._prepare(colours_B3HW), indices=[index], intermediates_only=True
            )
        features_BijD: Tensor = features_BDij.permute(0, 2, 3, 1)
        return features_BijD

    def embedding(self, colours_B3HW: Tensor) -> Tensor:
        """Return the embedding [B,D] of whole images: for CLIP, what is compared with texts."""
        with torch.no_grad():
            features = self._model.forward_features(self._prepare(colours_B3HW))
            embedding_BD: Tensor = self._model.forward_head(features)
        return embedding_BD

    def patches(self, colours_B3HW: Tensor) -> Tensor:
        """Return the features [B,i,j,D] of every patch, after the last norm and projection.

        Raises ConfigError for a model that is no vision transformer.
        """
        model = self._model
        if not hasattr(model, "num_prefix_tokens"):
            raise ConfigError(
                f"teacher {self.name} is no vision transformer, which features of patches are taken from."
            )
        with torch.no_grad():
            tokens_BLD = model.forward_features(self._prepare(colours_B3HW))[:, model.num_prefix_tokens :]
            side = round(tokens_BLD.shape[1] ** 0.5)
            tokens_BijD: Tensor = model.head(model.fc_norm(tokens_BLD)).unflatten(1, (side, side))
        return tokens_BijD

    def _prepare(self, colours_B3HW: Tensor) -> Tensor:
        size = (self.image_px, self.image_px)
        if colours_B3HW.shape[-2:] != size:
            colours_B3HW = F.interpolate(colours_B3HW, size, mode="bilinear", align_corners=False, antialias=True)
        return (colours_B3HW - self._mean) / self._std


def _create(name: str, weights: str | None, image_px: int | None) -> nn.Module:
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = difflib.get_close_matches(architecture, timm.list_models(), n=3)
        raise ConfigError(f"timm knows no model '{architecture}'. Close to it: {', '.join(close) or 'nothing'}.")
    options: dict[str, Any] = {} if image_px is None else {"img_size": image_px}
    if weights is None:
        _log.warning("downloading the weights of teacher %s", name)
        model: nn.Module = timm.create_model(name, pretrained=True, **options)
        return model
    if weights == RANDOM:
        with seeded(0, "teacher", name):  # the same on every rank
            model = timm.create_model(name, pretrained=False, **options)
        return model
    state = _read(Path(weights))
    try:
        # With all of its classes: timm loads strictly only when nothing of the head is to be left out.
        overlay = {"state_dict": state}
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **options)
    except (RuntimeError, KeyError) as error:
        raise ConfigError(f"{weights} does not hold the weights of timm's {name}: {error}") from error
    return model


def _read(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file, or of a torch file that holds nothing but data."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            f"the teacher's weights {path} are no file of torch, or hold more than tensors, which could run code. "
            "Give a .safetensors file, or one that torch.load(..., weights_only=True) reads."
        ) from None
    except (OSError, SafetensorError, RuntimeError, EOFError) as error:
        raise ConfigError(f"cannot read the teacher's weights {path}: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            tree = tree[key]
    if not isinstance(tree, dict) or not tree or not all(isinstance(value, Tensor) for value in tree.values()):
        raise ConfigError(f"{path} holds no mapping of names to tensors, which a teacher's weights are.")
    return tree
