"""The whole configuration of a pretraining run. Nothing here loads torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from gfm_pipeline.config import StrictModel
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.models.config import ModelConfig
from gfm_pipeline.objectives.objective import check_objectives


class OptimConfig(StrictModel):
    """AdamW, as in SimMIM."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    grad_clip: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient over all parameters, experts included."""
    scale_lr: bool = False
    """Multiply every stream's lr by its images per step / 512 (SimMIM's linear rule)."""


class ScheduleConfig(StrictModel):
    """Length of the run and the course of the learning rates, counted in optimizer steps."""

    epochs: int = Field(default=800, gt=0)
    warmup_epochs: float = Field(default=10, ge=0)
    warmup_lr: float = Field(default=5e-7, ge=0)
    """Learning rate at step 0, from which every group rises linearly to its own."""
    kind: Literal["multistep", "cosine", "constant"] = "multistep"
    milestones: tuple[float, ...] = (700,)
    """multistep: epochs at which the rates are multiplied by `factor`."""
    factor: float = Field(default=0.1, gt=0, le=1)
    min_share: float = Field(default=0.0, ge=0, le=1)
    """cosine: where the rates end, as a share of where they began."""
    max_steps: int | None = Field(default=None, gt=0)
    """Stop here even if epochs remain; the schedule itself does not change."""


class EngineConfig(StrictModel):
    """How DeepSpeed spreads the work."""

    ep_size: int = Field(default=1, gt=0)
    """Ranks over which the experts of a layer are shared. Must divide the world size and the number of experts."""
    zero_stage: Literal[1, 2] = 1
    """1 shares optimizer states between ranks, 2 gradients too. DeepSpeed's experts do not work with stage 3."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products of the forward and backward pass in bfloat16 (torch.autocast). Weights, gradients and
    optimizer states are fp32 always."""


class CheckpointConfig(StrictModel):
    """When state is saved and how much of it is kept."""

    every_steps: int = Field(default=1000, gt=0)
    """A checkpoint is also written at the end of the run."""
    keep: int = Field(default=2, gt=0)
    """Newest checkpoints to keep."""


class LogConfig(StrictModel):
    """How often metrics are written."""

    every_steps: int = Field(default=10, gt=0)


class TrainConfig(StrictModel):
    """A pretraining run: data -> model -> objectives -> optimiser, where it is written, how it is spread."""

    run_dir: str = "runs/default"
    """Folder of the run: resolved config, metrics, TensorBoard, checkpoints. A run found there is continued."""
    seed: int = Field(default=0, ge=0)
    data: DataConfig
    model: ModelConfig = ModelConfig()
    objectives: dict[str, dict[str, Any]] = Field(default={"cross_sensor_mim": {}}, min_length=1, validate_default=True)
    """Objectives by name with their options; their losses are added."""
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    engine: EngineConfig = EngineConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()

    @field_validator("objectives", mode="after")
    @classmethod
    def _fill_objectives(cls, sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return check_objectives(sections)

    @model_validator(mode="after")
    def _sizes_divide(self) -> TrainConfig:
        encoder, data = self.model.encoder, self.data
        if data.image_px % encoder.stride_px:
            raise ValueError(
                f"data.image_px {data.image_px} is not a multiple of the encoder's stride, {encoder.stride_px} px "
                f"(patch_px {encoder.patch_px}, {len(encoder.depths)} stages)"
            )
        if data.mask.cell_px % encoder.patch_px or data.image_px % data.mask.cell_px:
            raise ValueError(
                f"data.mask.cell_px {data.mask.cell_px} must be a multiple of model.encoder.patch_px "
                f"{encoder.patch_px} and divide data.image_px {data.image_px}"
            )
        if self.model.moe.num_experts % self.engine.ep_size:
            raise ValueError(
                f"engine.ep_size {self.engine.ep_size} does not divide model.moe.num_experts "
                f"{self.model.moe.num_experts}"
            )
        return self
