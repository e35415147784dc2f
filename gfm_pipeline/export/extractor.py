"""The shared encoder as a feature extractor for chosen sensors, with the methods that timm's models have.

Legend: B images, C bands, H x W pixels, i x j features of a stage, D channels of the last stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gfm_pipeline.models.msgfm import MsGFM


class SensorEncoder(nn.Module):
    """Images of one or more sensors in, features out; each sensor goes through the shared encoder by itself.

    A call takes {sensor: [B,C,H,W]} in the sensors' own units (`config["sensors"]` names bands and units) and returns,
    by sensor, pooled features [B,D]; with `features_only`, the maps of all stages, [B,channels,i,j] each, as
    `feature_info` describes them. NaN counts as not measured and becomes the mean.
    """

    def __init__(
        self, model: MsGFM, config: Mapping[str, Any], sensors: tuple[str, ...], features_only: bool = False
    ) -> None:
        super().__init__()
        self.sensors = sensors
        self.features_only = features_only
        self.embeds = nn.ModuleDict({sensor: model.embeds[sensor] for sensor in sensors})
        self.encoder = model.encoder
        self.mask_token_D = model.mask_token_D
        self.bands = {sensor: tuple(config["sensors"][sensor]["bands"]) for sensor in sensors}
        encoder = config["model"]["encoder"]
        self.num_features = int(encoder["embed_dim"] * 2 ** (len(encoder["depths"]) - 1))
        self.feature_info = [
            {
                "num_chs": encoder["embed_dim"] * 2**stage,
                "reduction": encoder["patch_px"] * 2**stage,
                "module": f"layers.{stage}",
            }
            for stage in range(len(encoder["depths"]))
        ]
        for sensor in sensors:
            for name in ("mean", "std"):
                column = torch.tensor(config["normalisation"][sensor][name])[:, None, None]
                self.register_buffer(f"{name}_{sensor}", column, persistent=False)

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return pooled features [B,D] by sensor, or lists of maps with `features_only`."""
        if self.features_only:
            return {sensor: self.forward_intermediates(image, sensor) for sensor, image in images.items()}
        return {sensor: self.forward_head(self.forward_features(image, sensor)) for sensor, image in images.items()}

    def normalise(self, image_BCHW: Tensor, sensor: str) -> Tensor:
        """Return images in units as the encoder was trained to see them."""
        mean, std = self.get_buffer(f"mean_{sensor}"), self.get_buffer(f"std_{sensor}")
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != len(mean):
            raise ValueError(
                f"images of {sensor} have shape {list(image_BCHW.shape)}, expected [B,{len(mean)},H,W] with the bands "
                f"{', '.join(self.bands[sensor])}"
            )
        image_BCHW = image_BCHW.to(mean.dtype)
        return (torch.where(image_BCHW.isnan(), mean, image_BCHW) - mean) / std

    def forward_features(self, image_BCHW: Tensor, sensor: str, normalise: bool = True) -> Tensor:
        """Return the features [B,i,j,D] of the last stage, channels last as timm's Swin has them.

        `normalise=False` is for images that are normalised already.
        """
        features_BijD: Tensor = self.encoder(self._tokens(image_BCHW, sensor, normalise))
        return features_BijD

    def forward_head(self, features_BijD: Tensor) -> Tensor:
        """Return the mean [B,D] over all places of an image."""
        return features_BijD.mean((1, 2))

    def forward_intermediates(self, image_BCHW: Tensor, sensor: str, normalise: bool = True) -> list[Tensor]:
        """Return the maps [B,channels,i,j] of all stages; the last one went through the final norm."""
        x = self._tokens(image_BCHW, sensor, normalise)
        maps = []
        for stage in self.encoder.layers:
            x = stage(x)
            maps.append(x)
        maps[-1] = self.encoder.norm(maps[-1])
        return [found.permute(0, 3, 1, 2).contiguous() for found in maps]

    def _tokens(self, image_BCHW: Tensor, sensor: str, normalise: bool) -> Tensor:
        if sensor not in self.sensors:
            raise ValueError(f"this encoder was loaded for {', '.join(self.sensors)}, not for {sensor}")
        image_BCHW = self.normalise(image_BCHW, sensor) if normalise else image_BCHW
        tokens_BhwD: Tensor = self.embeds[sensor](image_BCHW, None, self.mask_token_D)
        return tokens_BhwD
