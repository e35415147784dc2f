"""The shared encoder: timm's SwinV2 between the sensors' own embeddings and decoders.

timm's blocks know one image size: windows, shift and mask are made for it, and an image of another size either ends in
an error or is divided by the mask of the wrong size. `SizedBlock` makes them for the size that it is given.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar, cast

from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from torch import Tensor, nn

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.attention import use_attention

if TYPE_CHECKING:
    from gfm_pipeline.models.config import EncoderConfig

Module = TypeVar("Module", bound=nn.Module)


class SizedBlock(SwinTransformerV2Block):  # type: ignore[misc]
    """timm's block; features of another size than it was built for go through it as through one built for them.

    Position biases keep the scale of the windows that they were learned on, whatever the windows are now.
    """

    largest_window: int
    """Side of a window, in tokens, where the stage has room for it."""

    def _attn(self, x: Tensor) -> Tensor:
        size = (x.shape[1], x.shape[2])
        block = self if size == tuple(self.input_resolution) else self._sized(size)
        out: Tensor = SwinTransformerV2Block._attn(block, x)
        return out

    def _sized(self, size: tuple[int, int]) -> SizedBlock:
        """Return this block for features [B,*size,D]: the same parameters, other windows, shift and mask.

        It is made for each pass, which costs little beside it: nothing has to follow the weights or the device.
        """
        block, attention = _twin(self), _twin(self.attn)
        block._modules["attn"] = attention
        if not attention.pretrained_window_size[0]:
            attention.pretrained_window_size = attention.window_size
        block.set_input_size(size, (self.largest_window, self.largest_window))
        return block


class SwinEncoder(nn.Module):
    """Stages and final norm of a timm SwinV2; tokens [B,h,w,D] in, features [B,i,j,D'] out.

    It is built for images of `image_px`; those of another size get what an encoder built for that size would give,
    with `pretrained_window` set to the windows of this one. Source: Liu et al., "Swin Transformer V2: scaling up
    capacity and resolution", CVPR 2022. Parameter names below `layers` and `norm` are timm's, so its checkpoints load
    by name.
    """

    def __init__(self, config: EncoderConfig, image_px: int) -> None:
        super().__init__()
        swin = SwinTransformerV2(
            img_size=image_px,
            patch_size=config.patch_px,
            in_chans=1,
            num_classes=0,
            embed_dim=config.embed_dim,
            depths=config.depths,
            num_heads=config.num_heads,
            window_size=config.window,
            mlp_ratio=config.mlp_ratio,
            drop_path_rate=config.drop_path,
            pretrained_window_sizes=config.pretrained_window or (0,) * len(config.depths),
        )
        use_attention(swin, config.attention)
        for stage in swin.layers:
            stage.grad_checkpointing = config.activation_checkpointing
            for block in stage.blocks:
                # The class alone differs, as in `use_attention`.
                sized: Any = block
                sized.__class__ = SizedBlock
                sized.largest_window = config.window
        self.layers = swin.layers
        self.norm = swin.norm

    def block(self, stage: int, index: int) -> nn.Module:
        """Return block `index` (from 0) of stage `stage` (from 1)."""
        return cast(nn.Module, self.layers[stage - 1].blocks[index])

    def forward(self, tokens_BhwD: Tensor) -> Tensor:
        """Return the features of the last stage, channels last."""
        return self.stages(tokens_BhwD)[-1]

    def stages(self, tokens_BhwD: Tensor) -> list[Tensor]:
        """Return the features of every stage, channels last; those of the last stage normalised."""
        out = []
        for layer in self.layers:
            tokens_BhwD = layer(tokens_BhwD)
            out.append(tokens_BhwD)
        out[-1] = self.norm(out[-1])
        return out


def check_size(height: int, width: int, patch_px: int, num_stages: int, what: str = "images") -> None:
    """Raise ConfigError unless every stage divides images of `height` x `width` pixels evenly."""
    stride_px = patch_px * 2 ** (num_stages - 1)
    if min(height, width) < 1 or height % stride_px or width % stride_px:
        raise ConfigError(
            f"{what} of {height} x {width} px do not fit: image_px must be a multiple of the encoder's stride of "
            f"{stride_px} px (model.encoder.patch_px {patch_px} and {num_stages} stages). Crop, pad or resize them."
        )


def _twin(module: Module) -> Module:
    """Return a module with the same parameters and parts, whose buffers and parts may be replaced."""
    twin = copy.copy(module)
    twin._buffers, twin._modules = dict(module._buffers), dict(module._modules)
    return twin
