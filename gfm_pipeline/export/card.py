"""The words of a model card: front matter that Hugging Face reads, then what a stranger needs to use the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from gfm_pipeline.export.merge import Merged
from gfm_pipeline.export.settings import declared_nodata
from gfm_pipeline.viz.reconstruct import TrainedModel


def model_card(
    run: TrainedModel, config: dict[str, Any], merged: Merged | None, metrics: Sequence[dict[str, Any]]
) -> str:
    """Return README.md of an exported model; `metrics` are the rows of the run."""
    front = {
        "license": "other",
        "license_name": "see-the-collections",
        "library_name": "gfm-pipeline",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["earth-observation", "remote-sensing", "multisensor", "masked-image-modeling", *config["sensors"]],
    }
    body = [*_opening(run, config), *_use(config), *_sensors(config), *_training(run, metrics), *_merge(merged)]
    return "---\n" + yaml.safe_dump(front, sort_keys=False) + "---\n\n" + "\n".join(body) + "\n"


def _opening(run: TrainedModel, config: dict[str, Any]) -> Iterator[str]:
    encoder, moe = run.config.model.encoder, run.config.model.moe
    experts = config["model"]["moe"]["num_experts"]
    layers = sum(map(len, moe.blocks.values()))
    yield f"# A multisensor encoder for {', '.join(config['sensors'])}"
    yield ""
    yield (
        f"A SwinV2 of depths {list(encoder.depths)} and {encoder.embed_dim} channels, pretrained on images of "
        f"{config['image_px']} px by masked image modelling"
        + (f", with {experts} experts in {layers} blocks." if experts > 1 else ".")
    )
    yield "Weights come with no licence of their own: the terms of the collections it was trained on apply."


def _use(config: dict[str, Any]) -> Iterator[str]:
    sensor, spec = next(iter(config["sensors"].items()))
    shape = f"2, {len(spec['bands'])}, {config['image_px']}, {config['image_px']}"
    yield from (
        "",
        "## Use",
        "",
        "```python",
        "import torch",
        "from gfm_pipeline.export.pretrained import load_encoder  # needs torch, timm and safetensors",
        "",
        f'encoder = load_encoder("this-folder", sensors=["{sensor}"])',
        f"images = torch.zeros({shape})  # in {spec['units']}",
        f'features = encoder({{"{sensor}": images}})["{sensor}"]  # [2, {config["model"]["encoder"]["num_features"]}]',
        "```",
        "",
        "Images are given in the sensors' own units and normalised inside; NaN and nodata count as not measured.",
        f"They may have any height and width that {config['model']['encoder']['stride_px']} divides.",
        "`features_only=True` gives the maps of all stages; `load_pretrained` gives the whole model, decoders too.",
    )


def _sensors(config: dict[str, Any]) -> Iterator[str]:
    yield from ("", "## Sensors", "", "| sensor | bands | units | nodata | mean | std |", "|---|---|---|---|---|---|")
    for name, spec in config["sensors"].items():
        moments = config["normalisation"][name]
        mean, std = (", ".join(f"{value:.4g}" for value in moments[kind]) for kind in ("mean", "std"))
        values = declared_nodata(spec)
        several = values if isinstance(values, tuple) else () if values is None else (values,)
        nodata = ", ".join(f"{value:g}" for value in several)
        yield f"| {name} | {', '.join(spec['bands'])} | {spec['units']} | {nodata} | {mean} | {std} |"


def _training(run: TrainedModel, metrics: Sequence[dict[str, Any]]) -> Iterator[str]:
    data, lanes = run.config.data, run.config.data.lanes
    yield from ("", "## Training", "", f"{run.state.step} steps; objectives: {', '.join(run.config.objectives)}.", "")
    yield from ("| stream | collections | sensors | images per step | learning rate |", "|---|---|---|---|---|")
    for name, stream in data.streams.items():
        sensors = ", ".join(stream.sensors or ("all",))
        images = "derived" if stream.sub_batch is None else str(stream.sub_batch * lanes)
        yield f"| {name} | {', '.join(stream.collections)} | {sensors} | {images} | {stream.lr:g} |"
    if metrics:
        last = metrics[-1]
        yield from ("", f"Losses of step {last['step']}:", "", "| stream | loss |", "|---|---|")
        yield from (
            f"| {name} | {section['loss']:.4f} |" for name, section in last["streams"].items() if "loss" in section
        )
    yield from ("", "Manifest digests of the collections:", "")
    yield from (f"- `{name}`: `{digest}`" for name, digest in run.state.manifests.items())


def _merge(merged: Merged | None) -> Iterator[str]:
    if merged is None:
        return
    yield from (
        "",
        "## Experts merged",
        "",
        f"The {merged.experts} experts of {merged.layers} layers were made one: {merged.described()['rule']}. What it",
        f"costs, as the L1 loss over hidden cells of {merged.batches} batches of the training streams:",
        "",
        "| direction | with experts | merged |",
        "|---|---|---|",
    )
    for direction, loss in merged.loss_before.items():
        yield f"| {direction} | {loss:.4f} | {merged.loss_after[direction]:.4f} |"
