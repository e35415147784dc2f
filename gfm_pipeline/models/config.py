"""The model section of a training configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gfm_pipeline.config import StrictModel


class EmbedConfig(StrictModel):
    """From the pixels of one sensor to patch tokens."""

    kind: Literal["conv", "linear"] = "conv"
    """conv (msGFM): a 3x3 convolution at full resolution, then patches. linear (XGeo): patches of the raw pixels."""
    stem_channels: int = Field(default=32, gt=0)
    """Channels after the 3x3 convolution."""


class EncoderConfig(StrictModel):
    """The shared SwinV2. Defaults are SwinV2-Base."""

    patch_px: int = Field(default=4, gt=0)
    embed_dim: int = Field(default=128, gt=0)
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = Field(default=12, gt=0)
    """Side of an attention window in tokens; stages smaller than it attend globally."""
    mlp_ratio: float = Field(default=4.0, gt=0)
    drop_path: float = Field(default=0.0, ge=0, lt=1)

    @property
    def stride_px(self) -> int:
        """Pixels of the image per feature of the last stage."""
        return int(self.patch_px * 2 ** (len(self.depths) - 1))

    @property
    def num_features(self) -> int:
        """Channels of the last stage."""
        return int(self.embed_dim * 2 ** (len(self.depths) - 1))

    @model_validator(mode="after")
    def _stages_match(self) -> EncoderConfig:
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths names {len(self.depths)} stages, num_heads {len(self.num_heads)}")
        for stage, heads in enumerate(self.num_heads):
            if (self.embed_dim * 2**stage) % heads:
                raise ValueError(f"stage {stage + 1} has {self.embed_dim * 2**stage} channels for {heads} heads")
        return self


class MoEConfig(StrictModel):
    """Mixture-of-experts MLPs in place of chosen dense ones."""

    num_experts: int = Field(default=8, gt=0)
    """Experts of a layer over all ranks; 1 leaves the layer dense."""
    blocks: dict[int, tuple[int, ...]] = {3: (1, 3, 5, 7, 9, 11, 13, 15, 17)}
    """Stage (counted from 1, as the papers do) -> blocks in it (counted from 0) that get experts."""
    capacity_factor: float = Field(default=1.25, gt=0)
    """Slots of an expert as a multiple of tokens / experts; tokens beyond it pass the layer by."""
    min_capacity: int = Field(default=4, ge=0)
    aux_weight: float = Field(default=0.01, ge=0)
    """Weight of the load-balance loss, summed over the layers."""
    random_token_selection: bool = True
    """Who gets an expert's slots when there are too few: chosen at random, or the first tokens in the batch."""


class ModelConfig(StrictModel):
    """Per-sensor embedding -> shared encoder with experts -> per-sensor decoder."""

    embed: EmbedConfig = EmbedConfig()
    encoder: EncoderConfig = EncoderConfig()
    moe: MoEConfig = MoEConfig()

    @model_validator(mode="after")
    def _blocks_exist(self) -> ModelConfig:
        for stage, blocks in self.moe.blocks.items():
            if not 1 <= stage <= len(self.encoder.depths):
                raise ValueError(f"moe.blocks names stage {stage}, the encoder has {len(self.encoder.depths)}")
            depth = self.encoder.depths[stage - 1]
            wrong = [block for block in blocks if not 0 <= block < depth]
            if wrong:
                raise ValueError(f"moe.blocks names block {wrong[0]} of stage {stage}, which has blocks 0..{depth - 1}")
        return self
