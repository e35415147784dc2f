"""The shared encoder: timm's SwinV2 between the sensors' own embeddings and decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from gfm_pipeline.models.attention import use_attention

if TYPE_CHECKING:
    from gfm_pipeline.models.config import EncoderConfig


class SwinEncoder(nn.Module):
    """Stages and final norm of a timm SwinV2; tokens [B,h,w,D] in, features [B,i,j,D'] out.

    Source: Liu et al., "Swin Transformer V2: scaling up capacity and resolution", CVPR 2022. Parameter names below
    `layers` and `norm` are timm's, so its checkpoints load by name.
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
