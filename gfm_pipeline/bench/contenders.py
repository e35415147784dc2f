"""Which models race in a benchmark of steps. Nothing here loads torch."""

from __future__ import annotations

from typing import Any

from gfm_pipeline.train.config import TrainConfig

COMPILED = " compiled"


def contenders(config: TrainConfig, compiled: bool) -> dict[str, TrainConfig | None]:
    """Return the configurations to measure, by name; None is timm's own model."""
    dense = config.model.moe.model_copy(update={"num_experts": 1})
    named: dict[str, TrainConfig | None] = {"timm": None, "dense": _with(config, "model", moe=dense)}
    if config.model.moe.num_experts > 1:
        named["moe"] = config
    if compiled:
        ours = {name: found for name, found in named.items() if found is not None}
        named |= {name + COMPILED: _with(found, "engine", compile=True) for name, found in ours.items()}
    return named


def _with(config: TrainConfig, section: str, **changes: Any) -> TrainConfig:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=changes)})
