"""The model section of a training configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gfm_pipeline.config import StrictModel

Attention = Literal["auto", "sdpa", "timm"]


class EmbedConfig(StrictModel):
    """From the pixels of one sensor to patch tokens."""

    kind: Literal["conv", "linear"] = "conv"
    """conv (msGFM): a 3x3 convolution at full resolution, then patches. linear (XGeo): patches of the raw pixels."""
    stem_channels: int = Field(default=32, gt=0)
    """Channels after the 3x3 convolution."""


class InitConfig(StrictModel):
    """Weights to start the encoder from."""

    path: str
    """A local file of a SwinV2's weights: .safetensors, or what torch.save wrote; timm's names, those of SwinV2's own
    code or SimMIM's; or the model.safetensors that gfm export wrote, of which the encoder alone is taken."""
    experts: Literal["copy", "fresh"] = "copy"
    """copy: every expert starts as the dense MLP of its block (sparse upcycling), or where the file has experts as the
    same one of those. fresh: experts start at random."""
    expert_noise: float = Field(default=0.0, ge=0)
    """copy: normal noise on each expert's weights, as a share of their deviation."""


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
    attention: Attention = "auto"
    """sdpa: torch's fused kernels. timm: written out. The results are equal; auto takes sdpa on GPUs, where it is
    faster, and timm on CPUs, where it is not."""
    activation_checkpointing: bool = False
    """Keep only what goes into a block and compute the rest again in the backward pass: less memory, more time."""
    pretrained_window: tuple[int, ...] = ()
    """Windows, by stage, of the run whose weights are taken over, where they are others than here (12, 12, 12, 6 for
    192 px with window 12): the position biases go by the distances of that run. Empty: no other run."""

    init: InitConfig | None = None
    """Weights to start from in a new run; None: at random."""

    @property
    def stride_px(self) -> int:
        """Pixels of the image per feature of the last stage."""
        return int(self.patch_px * 2 ** (len(self.depths) - 1))

    @property
    def num_features(self) -> int:
        """Channels of the last stage."""
        return int(self.embed_dim * 2 ** (len(self.depths) - 1))

    def stage_windows(self, image_px: int) -> tuple[int, ...]:
        """Return the side of the windows of each stage: `window`, or the stage where it is smaller."""
        sides = [image_px // (self.patch_px * 2**stage) for stage in range(len(self.depths))]
        return tuple(min(self.window, side) for side in sides)

    @model_validator(mode="after")
    def _stages_match(self) -> EncoderConfig:
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths names {len(self.depths)} stages, num_heads {len(self.num_heads)}")
        for stage, heads in enumerate(self.num_heads):
            if (self.embed_dim * 2**stage) % heads:
                raise ValueError(f"stage {stage + 1} has {self.embed_dim * 2**stage} channels for {heads} heads")
        if self.pretrained_window and len(self.pretrained_window) != len(self.depths):
            raise ValueError(f"pretrained_window names {len(self.pretrained_window)} stages, depths {len(self.depths)}")
        if any(window < 1 for window in self.pretrained_window):
            raise ValueError(f"pretrained_window {self.pretrained_window} holds a window smaller than one token")
        return self


class MoEConfig(StrictModel):
    """Mixture-of-experts MLPs in place of chosen dense ones."""

    num_experts: int = Field(default=8, gt=0)
    """Experts of a layer over all ranks; 1 leaves the layer dense."""
    blocks: dict[int, tuple[int, ...]] = {3: (1, 3, 5, 7, 9, 11, 13, 15, 17)}
    """Stage (counted from 1, as the papers do) -> blocks in it (counted from 0) that get experts; without experts
    (num_experts 1) it says nothing."""
    capacity_factor: float = Field(default=1.25, gt=0)
    """Slots of an expert as a multiple of tokens / experts; tokens beyond it pass the layer by."""
    min_capacity: int = Field(default=4, ge=0)
    aux_weight: float = Field(default=0.01, ge=0)
    """Weight of the load-balance loss, summed over the layers."""
    aux_loss: Literal["load_balance", "importance", "importance_load"] = "load_balance"
    """load_balance: probability times share of tokens (GShard, Switch), DeepSpeed's, and the default because it asks
    for no noise. importance: variation of the summed probabilities (Shazeer 2017). importance_load: the mean of that
    and of the variation of the load, the tokens an expert is likely to be chosen by (Shazeer 2017, V-MoE; what
    Swin-MoE trains with); it needs noise: gaussian."""
    top_k: Literal[1, 2] = 1
    """Experts of a token. Of two, the weights of those with room are brought to a sum of 1."""
    noise: Literal["none", "jitter", "rsample", "gaussian"] = "none"
    """Of the gate, in training: factors of 1 +- 0.01 on its input (Switch), Gumbel noise on the choice (DeepSpeed's
    RSample), normal noise of deviation 1 / experts on the logits (V-MoE)."""
    selection: Literal["random", "first", "priority"] = "random"
    """Who gets an expert's slots when there are too few: drawn at random, the first tokens of the batch, or those the
    gate is surest of (V-MoE's batch-prioritised routing)."""
    compute: Literal["auto", "grouped", "padded"] = "auto"
    """grouped: matrix products over the tokens an expert has. padded: one batched product over all slots, empty ones
    included. auto: grouped on a CPU when one rank holds all experts, padded else."""

    @model_validator(mode="after")
    def _load_needs_noise(self) -> MoEConfig:
        if self.aux_loss == "importance_load" and self.noise != "gaussian":
            raise ValueError(
                f"aux_loss importance_load is the chance of an expert under gaussian noise, noise is {self.noise}: set "
                "noise to gaussian, or aux_loss to importance"
            )
        return self


class ModelConfig(StrictModel):
    """Per-sensor embedding -> shared encoder with experts -> per-sensor decoder."""

    embed: EmbedConfig = EmbedConfig()
    encoder: EncoderConfig = EncoderConfig()
    moe: MoEConfig = MoEConfig()

    @model_validator(mode="after")
    def _blocks_exist(self) -> ModelConfig:
        for stage, blocks in self.moe.blocks.items() if self.moe.num_experts > 1 else ():
            if not 1 <= stage <= len(self.encoder.depths):
                raise ValueError(f"moe.blocks names stage {stage}, the encoder has {len(self.encoder.depths)}")
            depth = self.encoder.depths[stage - 1]
            wrong = [block for block in blocks if not 0 <= block < depth]
            if wrong:
                raise ValueError(f"moe.blocks names block {wrong[0]} of stage {stage}, which has blocks 0..{depth - 1}")
        return self
