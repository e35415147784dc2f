"""The whole configuration of a pretraining run. Nothing here loads torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gfm_pipeline.config import StrictModel
from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.errors import ConfigError
from gfm_pipeline.evaluate.config import EvaluateConfig
from gfm_pipeline.models.config import ModelConfig
from gfm_pipeline.objectives.objective import check_images, check_objectives
from gfm_pipeline.train.trackers.tracker import check_trackers

SHARED_GROUPS = ("encoder", "experts", "objectives")
"""Parameter groups of the optimiser that belong to no stream."""


class OptimConfig(StrictModel):
    """AdamW, as in SimMIM."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    grad_clip: float = Field(default=5.0, gt=0)
    """Largest norm of the gradient over all parameters, experts included."""
    scale_lr: bool = False
    """Multiply the lr of all streams by the images of a step, over all streams and lanes, / 512 (SimMIM's linear rule);
    their proportions stay. Off by default: the lr of the papers belong to their batch."""
    step_per_stream: bool = False
    """The literal reading of a learning rate per stream, for ablation: an update for each stream of a batch in turn,
    all parameters at that stream's rate. Why not: Adam divides by the size of recent gradients, so the momentum of one
    stream goes on moving the shared encoder at the rate of the next, and an intended 10 : 2.5 : 1 comes out near
    1 : 1 : 1; and a step costs an update for each stream. The default sees all streams in one update (train/optim.py),
    where the same intention was measured as 8.9 : 2.45 : 1 on the shared encoder when all streams are of one
    distribution, and as 2.3 : 1.5 : 1 in the first 300 steps when their sensors are distinct."""


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
    warmup_prefix: bool = True
    """cosine: true lets it begin where the warm-up ends, without a jump. false counts it from the run's first step, so
    that the warm-up hides its beginning and the rates step down to the curve after it: SimMIM's and GFM's (timm's
    warmup_prefix=False)."""
    max_steps: int | None = Field(default=None, gt=0)
    """Stop here even if epochs remain; the schedule itself does not change."""
    max_hours: float | None = Field(default=None, gt=0)
    """Hours after its start at which a run saves a checkpoint and ends to be requeued, with exit code 75."""


class EngineConfig(StrictModel):
    """How DeepSpeed spreads the work."""

    ep_size: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Ranks over which the experts of a layer are shared. Must divide the world size and the number of experts; auto
    takes the largest such number within a machine. It changes the speed, not the losses."""
    zero_stage: Literal[0, 1, 2] = 1
    """0 shares nothing, 1 optimizer states between ranks, 2 gradients too. DeepSpeed's experts do not work with
    stage 3."""
    dtype: Literal["fp32", "bf16"] = "fp32"
    """bf16: matrix products of the forward and backward pass in bfloat16 (torch.autocast). Weights, gradients and
    optimizer states are fp32 always, as are layer norms, the experts' gate, the position bias and reductions between
    ranks."""
    compile: bool = False
    """Compile the encoder's stages with torch.compile; expert layers stay as they are. The first steps take minutes."""

    @field_validator("zero_stage", mode="before")
    @classmethod
    def _experts_need_whole_weights(cls, stage: Any) -> Any:
        if stage == 3:
            raise ValueError("stage 3 shares out weights, with which DeepSpeed's experts do not work; set 0, 1 or 2")
        return stage

    def expert_ranks(self, num_experts: int, world_size: int, per_node: int | None = None) -> int:
        """Return over how many ranks the experts are shared; `per_node` is the number of ranks on a machine.

        Without experts (`num_experts` 1) that is one, whatever is set. Raises ConfigError for a size that cannot work.
        """
        if num_experts == 1:
            return 1
        if self.ep_size == "auto":
            # Within a machine: the experts' all-to-all is cheap between its GPUs and dear between machines.
            return math.gcd(num_experts, world_size, per_node or world_size)
        for what, number in (("model.moe.num_experts", num_experts), ("the world size", world_size)):
            if number % self.ep_size:
                raise ConfigError(
                    f"engine.ep_size {self.ep_size} does not divide {what} {number}. "
                    f"Set engine.ep_size to auto or one of {divisors(math.gcd(num_experts, world_size))}."
                )
        return self.ep_size


def divisors(number: int) -> list[int]:
    """Return what divides `number`, in rising order."""
    return [n for n in range(1, number + 1) if number % n == 0]


class CheckpointConfig(StrictModel):
    """When state is saved and how much of it is kept."""

    every_steps: int = Field(default=1000, gt=0)
    """A checkpoint is also written at the end of the run."""
    keep: int = Field(default=2, gt=0)
    """Newest checkpoints to keep."""
    url: str | None = None
    """Where checkpoints go: a folder that all ranks share or the URL of an object store (s3://, gs://, az://), for one
    run alone; None: `checkpoints` in the run folder."""
    background: bool = False
    """Write while training goes on, from copies in memory. Failures are raised by the next save or the run's end."""


class HealthConfig(StrictModel):
    """What is a bad step, what a hang, and what is done about them."""

    on_bad_step: Literal["stop", "skip_batch", "rewind"] = "stop"
    """A step is bad when its loss or gradient is not finite, or too large by the factors below; it never updates
    weights. stop: the run ends with the reason. skip_batch: it goes on with the next step. rewind: weights and
    optimizer go back to the newest checkpoint and training goes on behind the bad step, so the steps from the
    checkpoint to the bad one are left out. Recorded in events.jsonl."""
    loss_factor: float | None = Field(default=None, gt=1)
    """A loss beyond this multiple of the median of the last `window_steps` is bad; None: any finite one is good."""
    norm_factor: float | None = Field(default=None, gt=1)
    """The same for the norm of the gradient."""
    window_steps: int = Field(default=50, ge=3)
    """Good steps that the medians are taken over; before as many were taken, only what is not finite is bad."""
    max_bad_steps: int = Field(default=20, ge=0)
    """Bad steps of the whole run after which it stops whatever `on_bad_step` says."""
    deadline_s: float | None = Field(default=1800, gt=0)
    """A step, save or evaluation that takes longer is taken for a hang: all ranks write the stacks of their threads to
    stacks-RANK.txt in the run folder and end. None: no deadline."""
    unmoved_after_steps: int | None = Field(default=100, gt=0)
    """So many steps after each start, trainable parameters that never got a gradient or never changed are reported."""
    on_unmoved: Literal["warn", "stop"] = "warn"
    """stop: end the run with their names. An expert that no token chose yet is such a parameter, too."""


class LogConfig(StrictModel):
    """How often metrics are written, and where they are shown beside metrics.jsonl."""

    every_steps: int = Field(default=10, gt=0)
    trackers: dict[str, dict[str, Any]] = Field(default={"tensorboard": {}}, validate_default=True)
    """Trackers by name with their options: tensorboard, wandb, mlflow."""

    @field_validator("trackers", mode="after")
    @classmethod
    def _fill_trackers(cls, sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return check_trackers(sections)


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
    health: HealthConfig = HealthConfig()
    log: LogConfig = LogConfig()
    evaluate: EvaluateConfig | None = None
    """None: nothing is measured beside the losses of training."""

    @field_validator("objectives", mode="after")
    @classmethod
    def _fill_objectives(cls, sections: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return check_objectives(sections)

    @model_validator(mode="after")
    def _pixels_are_reconstructed(self) -> TrainConfig:
        if self.evaluate is not None and self.evaluate.reconstruct:
            mim = self.objectives.get("cross_sensor_mim")
            if mim is None or mim["normalise_target_px"] is not None:
                raise ValueError(
                    "evaluate.reconstruct needs decoders that answer in pixels: the objective cross_sensor_mim, with "
                    "normalise_target_px null. Leave evaluate.reconstruct out, or change objectives"
                )
        return self

    @model_validator(mode="after")
    def _streams_are_no_groups(self) -> TrainConfig:
        for name in self.data.streams:
            if name in SHARED_GROUPS:
                raise ValueError(
                    f"data.streams.{name}: '{name}' is the name of a parameter group; call the stream else"
                )
        return self

    @model_validator(mode="after")
    def _objectives_fit_the_images(self) -> TrainConfig:
        check_images(self.objectives, self.data.image_px)
        return self

    @model_validator(mode="after")
    def _sizes_divide(self) -> TrainConfig:
        encoder, data = self.model.encoder, self.data
        if data.pixels != "normalised":
            raise ValueError(f"data.pixels is {data.pixels}, pretraining needs normalised images")
        for sensor, time in data.time.items():
            if time.frames > 1:
                raise ValueError(
                    f"data.time.{sensor}.frames is {time.frames}, the model takes images of one date: set it to 1, "
                    "which draws another date of each sample in each pass"
                )
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
        self.engine.expert_ranks(self.model.moe.num_experts, self.model.moe.num_experts)
        return self
