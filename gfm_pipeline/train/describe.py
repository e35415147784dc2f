"""What a configuration would train, without allocating any of it: torch's meta device has shapes and no memory."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from gfm_pipeline.data.config import DataConfig
from gfm_pipeline.data.mixture import open_mixture
from gfm_pipeline.errors import ConfigError, GfmError
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import SensorSpec, builtin_sensor
from gfm_pipeline.train.config import TrainConfig
from gfm_pipeline.train.optim import count_parameters, effective_rates, parameter_groups


def describe_model(config: TrainConfig) -> list[str]:
    """Return lines that tell parameters by part and the optimiser's groups.

    What objectives train beside the model is left out: it depends on their teachers. Raises ConfigError when the
    sensors of a stream are neither named nor to be read from its collections.
    """
    streams, sensors = _sensors(config.data)
    with torch.device("meta"):
        model = MsGFM(config.model, sensors, config.data.image_px, config.seed)
    layers = [layer for _, layer in model.moe_layers()]
    in_layers = sum(count_parameters(layer) for layer in layers)
    of_experts = sum(
        p.numel() for layer in layers for name, p in layer.named_parameters() if name.startswith("experts.")
    )
    one_expert = of_experts // config.model.moe.num_experts
    encoder = count_parameters(model.encoder)
    note = f"of which {in_layers:,} in {len(layers)} layers of experts" if layers else ""
    lines = [f"parameters: {count_parameters(model):,}"]
    lines += _table(
        [
            ("encoder", f"{encoder:,}", note),
            ("  with dense MLPs", f"{encoder - in_layers + one_expert:,}", ""),
            *((f"embedding of {name}", f"{count_parameters(embed):,}", "") for name, embed in model.embeds.items()),
            *((f"decoder of {name}", f"{count_parameters(head):,}", "") for name, head in model.decoders.items()),
        ]
    )
    rates = effective_rates(streams, config.data.lanes, config.optim)
    lines.append("optimiser groups:")
    lines += _table(
        (
            group["label"],
            f"{sum(parameter.numel() for parameter in group['params']):,}",
            f"lr {group['base_lr']:.3g}  decay {group['weight_decay']:.3g}",
        )
        for group in parameter_groups(model, rates, config.optim)
    )
    return lines


def _sensors(data: DataConfig) -> tuple[dict[str, tuple[tuple[str, ...], float, int]], dict[str, SensorSpec]]:
    """Return (sensors, lr, sub-batch) by stream and the sensors' specifications.

    From the collections, or from the table of built-in sensors as long as the collections are not there.
    """
    try:
        mixture = open_mixture(data)
    except GfmError as error:
        streams: dict[str, tuple[tuple[str, ...], float, int]] = {}
        for name, stream in data.streams.items():
            if stream.sensors is None or stream.sub_batch is None:
                raise ConfigError(
                    f"data.streams.{name} does not name its sensors and sub_batch, and its collections cannot tell: "
                    f"{error} Set data.streams.{name}.sensors and .sub_batch, or data.root."
                ) from error
            streams[name] = (stream.sensors, stream.lr, stream.sub_batch)
        specs = {sensor: builtin_sensor(sensor) for sensors, _, _ in streams.values() for sensor in sensors}
        for stream in data.streams.values():
            for sensor, bands in stream.bands.items():
                if sensor in specs:
                    specs[sensor] = specs[sensor].model_copy(update={"bands": bands})
        return streams, specs
    told = {name: (s.sensors, data.streams[name].lr, s.sub_batch) for name, s in mixture.streams.items()}
    return told, mixture.sensors


def _table(rows: Iterable[tuple[str, str, str]]) -> list[str]:
    return [f"  {label:<22} {number:>13}  {note}".rstrip() for label, number, note in rows]
