"""From the encoder's features back to the pixels of one sensor (SimMIM's one-layer head)."""

from __future__ import annotations

from torch import Tensor, nn


class SensorDecoder(nn.Module):
    """A 1x1 convolution to stride^2 * C channels and a pixel shuffle.

    Source: Xie et al., "SimMIM: a simple framework for masked image modeling", CVPR 2022.
    """

    def __init__(self, num_features: int, num_bands: int, stride_px: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(num_features, stride_px**2 * num_bands, 1)
        self.shuffle = nn.PixelShuffle(stride_px)

    def forward(self, features_BijD: Tensor) -> Tensor:
        """Return the normalised image [B,C,H,W] for features [B,H/stride,W/stride,D]."""
        image_BCHW: Tensor = self.shuffle(self.head(features_BijD.permute(0, 3, 1, 2)))
        return image_BCHW
