"""The shared encoder as a feature extractor for chosen sensors, with the methods that timm's models have.

Legend: B images, C bands, H x W pixels, i x j features of a stage, D channels of the last stage.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gfm_pipeline.export.settings import Nodata, declared_nodata
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.swin import check_size
from gfm_pipeline.sensors.missing import unmeasured_tensor


class SensorEncoder(nn.Module):
    """Images of one or more sensors in, features out; each sensor goes through the shared encoder by itself.

    A call takes {sensor: [B,C,H,W]} in the sensors' own units (`config["sensors"]` names bands and units) and returns,
    by sensor, pooled features [B,D]; with `features_only`, the maps of all stages, [B,channels,i,j] each, as
    `feature_info` describes them. What was not measured becomes the mean, as in training: NaN, and the sensor's
    `nodata`: every value that a collection of the training declared. `nodata[sensor]` of this object holds one value,
    several or None, and may be set for images that use another one, or of which such a value is a measured pixel.

    Images may have any type and any height and width that the encoder's stride divides; they are treated as by a model
    built for that size, whatever the size of training was. Other sizes raise ConfigError.
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
        self.nodata: dict[str, Nodata] = {sensor: declared_nodata(config["sensors"][sensor]) for sensor in sensors}
        self._double = {sensor for sensor in sensors if config["sensors"][sensor].get("dtype") == "float64"}
        encoder = config["model"]["encoder"]
        self._patch_px: int = encoder["patch_px"]
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
        self._check_sensor(sensor, image_BCHW)
        mean, std = self.get_buffer(f"mean_{sensor}"), self.get_buffer(f"std_{sensor}")
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != len(mean):
            raise ValueError(
                f"images of {sensor} have shape {list(image_BCHW.shape)}, expected [B,{len(mean)},H,W] with the bands "
                f"{', '.join(self.bands[sensor])}; the dates of a series are images of their own"
            )
        if image_BCHW.dtype == torch.float64 and sensor not in self._double:
            image_BCHW = image_BCHW.float()  # as it was stored: 0.1 as nodata is the 0.1 of float32
        missing = unmeasured_tensor(image_BCHW, self.nodata[sensor])
        image_BCHW = image_BCHW.to(mean.dtype)
        if missing is not None:
            image_BCHW = torch.where(missing, mean, image_BCHW)
        return (image_BCHW - mean) / std

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
        self._check_sensor(sensor, image_BCHW)
        image_BCHW = self.normalise(image_BCHW, sensor) if normalise else image_BCHW
        height, width = image_BCHW.shape[-2:]
        check_size(height, width, self._patch_px, len(self.encoder.layers), f"images of {sensor}")
        tokens_BhwD: Tensor = self.embeds[sensor](image_BCHW, None, self.mask_token_D)
        return tokens_BhwD

    def _check_sensor(self, sensor: str, image_BCHW: Tensor) -> None:
        if sensor not in self.sensors:
            raise ValueError(f"this encoder was loaded for {', '.join(self.sensors)}, not for {sensor}")
        if not isinstance(image_BCHW, Tensor):
            raise TypeError(f"images of {sensor} are a {type(image_BCHW).__name__}, expected a tensor of torch")
