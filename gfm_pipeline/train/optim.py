"""Parameter groups: per-stream learning rates under Adam.

Stepping once per stream with its own rate is wrong under AdamW: momentum smears over the streams. So a step sees all
streams, and a stream's rate acts twice: as its share in the loss of the shared encoder, and as the learning rate of
the parameters that belong to it alone, its sensors' embeddings and decoders. A sensor that several streams carry
belongs to the one with the highest rate.

What rates of 10 : 2.5 : 1 do was measured. Where the streams are of one distribution they move the shared encoder as
8.9 : 2.45 : 1. Adam sets the size of an update by the whole gradient, so where the sensors are distinct the proportions
are less: 2.3 : 1.5 : 1 in the first 300 steps, and 4.2 : 2.2 : 1 on the parameters that belong to one stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gfm_pipeline.models.moe import canonical_name, is_expert_name
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.train.config import SHARED_GROUPS, OptimConfig

TRUNK, EXPERTS, OBJECTIVES = SHARED_GROUPS


@dataclass(frozen=True)
class StreamRate:
    """What the optimiser needs to know of a stream."""

    sensors: tuple[str, ...]
    lr: float


def effective_rates(
    streams: Mapping[str, tuple[Sequence[str], float, int]],
    lanes: int,
    config: OptimConfig,
    images_per_step: float | None = None,
) -> dict[str, StreamRate]:
    """Return the rate of each stream, given as (sensors, lr, sub_batch); scaled by images / 512 when asked for.

    The images are those of a step over all streams and lanes, or `images_per_step`. One factor for all: a stream's rate
    says already how many of them are its own, and the rates keep their proportions.
    """
    images = images_per_step or lanes * sum(sub_batch for _, _, sub_batch in streams.values())
    factor = images / 512 if config.scale_lr else 1.0
    return {name: StreamRate(tuple(sensors), lr * factor) for name, (sensors, lr, _) in streams.items()}


def stream_weights(rates: Mapping[str, StreamRate], homogeneous: bool = False) -> dict[str, float]:
    """Return the factor of each stream's loss, in proportion to its learning rate.

    They add up to 1; in homogeneous batches, where a loss has but one stream, the largest is 1.
    """
    total = (max if homogeneous else sum)(rate.lr for rate in rates.values())
    return {name: rate.lr / total for name, rate in rates.items()}


def sensor_owners(rates: Mapping[str, StreamRate]) -> dict[str, str]:
    """Return the stream each sensor's embedding and decoder belong to: the first with the highest rate."""
    owners: dict[str, str] = {}
    for name, rate in rates.items():
        for sensor in rate.sensors:
            if sensor not in owners or rate.lr > rates[owners[sensor]].lr:
                owners[sensor] = name
    return owners


def parameter_groups(model: MsGFM, rates: Mapping[str, StreamRate], config: OptimConfig) -> list[dict[str, Any]]:
    """Return AdamW groups such that every trainable parameter is in exactly one.

    Each group has `params`, `lr`, `base_lr`, `weight_decay`, `label`, `sensors` (those that it belongs to; None: shared
    by all), and the `name` (and `moe`) that DeepSpeed requires: a distinct one for dense groups, that of the expert
    process group for experts.
    """
    owners = sensor_owners(rates)
    trunk_lr = max(rate.lr for rate in rates.values())
    no_decay = model.no_decay_names()
    layers: Any = dict(model.moe_layers())
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner = _owner(canonical_name(name, layers), owners)
        decay = "no_decay" if name in no_decay else "decay"
        label = f"{owner}/{decay}"
        if label not in groups:
            lr = rates[owner].lr if owner in rates else trunk_lr
            groups[label] = {
                "params": [],
                "lr": lr,
                "base_lr": lr,
                "weight_decay": config.weight_decay if decay == "decay" else 0.0,
                "label": label,
                "sensors": tuple(s for s, stream in owners.items() if stream == owner) if owner in rates else None,
                "name": label,
            }
            if owner == EXPERTS and hasattr(parameter, "group_name"):
                groups[label] |= {"name": parameter.group_name, "moe": True}
        groups[label]["params"].append(parameter)
    return list(groups.values())


def _owner(canonical: str, owners: Mapping[str, str]) -> str:
    room, _, rest = canonical.partition(".")
    if room in ("embeds", "decoders"):
        return owners[rest.partition(".")[0]]
    if room == OBJECTIVES:
        return OBJECTIVES
    return EXPERTS if is_expert_name(canonical) else TRUNK


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters held by this process."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
