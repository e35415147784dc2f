"""From the pixels of one sensor to the patch tokens of the shared encoder.

Shapes: B images, C bands, H x W pixels, h x w patches, D channels of a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from gfm_pipeline.models.config import EmbedConfig


class SensorEmbed(nn.Module):
    """Patch embedding of one sensor: msGFM's convolutional stem, or XGeo's linear patches."""

    def __init__(self, num_bands: int, config: EmbedConfig, patch_px: int, dim: int) -> None:
        super().__init__()
        self.patch_px = patch_px
        channels = config.stem_channels if config.kind == "conv" else num_bands
        self.stem = nn.Conv2d(num_bands, channels, 3, padding=1) if config.kind == "conv" else nn.Identity()
        self.patches = nn.Conv2d(channels, dim, patch_px, stride=patch_px)
        self.norm = nn.LayerNorm(dim)

    def forward(self, image_BCHW: Tensor, mask_Bhw: Tensor | None, mask_token_D: Tensor) -> Tensor:
        """Return tokens [B,h,w,D]; patches under the boolean `mask_Bhw` [B,h,w] become the mask token.

        Hidden pixels are set to the mean (0 after normalisation) before the stem: its 3x3 kernel would otherwise
        carry a rim of them into visible patches.
        """
        if mask_Bhw is not None:
            visible = ~mask_Bhw.repeat_interleave(self.patch_px, 1).repeat_interleave(self.patch_px, 2)
            image_BCHW = image_BCHW * visible[:, None]
        tokens_BhwD: Tensor = self.norm(self.patches(self.stem(image_BCHW)).permute(0, 2, 3, 1))
        if mask_Bhw is None:
            return tokens_BhwD
        return torch.where(mask_Bhw[..., None], mask_token_D.to(tokens_BhwD.dtype), tokens_BhwD)


def cells_to_patches(mask_Bij: Tensor, patches_per_cell: int) -> Tensor:
    """Return the mask of patches [B,h,w] from the mask of cells [B,i,j]."""
    return mask_Bij.repeat_interleave(patches_per_cell, 1).repeat_interleave(patches_per_cell, 2)


def cells_to_pixels(mask_Bij: Tensor, size_px: int) -> Tensor:
    """Return the mask of pixels [B,1,H,W] (float) from the mask of cells [B,i,j] of a square image."""
    return F.interpolate(mask_Bij[:, None].float(), size=(size_px, size_px), mode="nearest")
