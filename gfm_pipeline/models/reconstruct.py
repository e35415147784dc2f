"""Whole images out of a model that answers for hidden cells only: asked twice, with masks that complement each other.

Legend: B images, C bands, H x W pixels, i x j cells.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gfm_pipeline.models.embed import cells_to_pixels
from gfm_pipeline.models.msgfm import MsGFM, SensorImages


def reconstruct_whole(model: MsGFM, source: SensorImages, targets: Sequence[str], seed: int) -> dict[str, Tensor]:
    """Return, for each of the sensors `targets`, the normalised images [B,C,H,W] that the model makes of `source`.

    Every pixel was predicted while its cell of the source was hidden: by the mask of `source`, or by another that
    hides the cells it shows. `seed` draws the rest of the second mask.
    """
    mask_Bij = source.mask_Bij
    assert mask_Bij is not None
    other = SensorImages(source.sensor, source.image_BCHW, complement(mask_Bij, seed))
    # Two passes rather than one of twice the size: the first gives the bits of a pass of its own.
    first, second = (model.encode([images])[0] for images in (source, other))
    hidden_B1HW = cells_to_pixels(mask_Bij, source.image_BCHW.shape[-1]).bool()
    return {
        target: torch.where(hidden_B1HW, model.decode(target, first), model.decode(target, second))
        for target in targets
    }


def complement(mask_Bij: Tensor, seed: int) -> Tensor:
    """Return masks that hide every visible cell, and as many cells in all as `mask_Bij` (or all the visible ones)."""
    generator = torch.Generator().manual_seed(seed)
    flat = mask_Bij.flatten(1)
    # Rank cells, visible ones first, hidden ones in random order; hide the first of them.
    order = (flat + torch.rand(flat.shape, generator=generator).to(flat.device)).argsort(dim=1)
    ranks = order.argsort(dim=1)
    visible = (~flat).sum(1, keepdim=True)
    count = torch.maximum(flat.sum(1, keepdim=True), visible)
    return (ranks < count).reshape(mask_Bij.shape)
