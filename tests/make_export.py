"""Write an exported model with the layout of version 1 alone, as a stand-in for a run and `gfm export`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from gfm_pipeline.models.config import EncoderConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.sensors import SensorSpec

SMALL = ModelConfig(
    encoder=EncoderConfig(embed_dim=8, depths=(2, 2), num_heads=(1, 2), window=4),
    moe=MoEConfig(num_experts=2, blocks={2: (1,)}),
)


def make_export(folder: Path, specs: Sequence[SensorSpec], config: ModelConfig = SMALL, image_px: int = 32) -> MsGFM:
    """Write a model of random weights, norms included; every band of it has mean 100 and deviation 20."""
    model = MsGFM(config, {spec.name: spec for spec in specs}, image_px, seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "encoder" in name:  # the norms start at zero and would hide what the blocks do
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    section = config.model_dump(mode="json")
    section["encoder"] |= {"stride_px": config.encoder.stride_px, "num_features": config.encoder.num_features}
    document: dict[str, Any] = {
        "format": "gfm-model",
        "version": 1,
        "image_px": image_px,
        "model": section,
        "sensors": {spec.name: spec.model_dump(mode="json") for spec in specs},
        "normalisation": {
            spec.name: {"mean": [100.0] * len(spec.bands), "std": [20.0] * len(spec.bands)} for spec in specs
        },
        "merged_experts": None,
        "trained": {"steps": 1, "collections": {}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt", "gfm": "gfm-model-1"})
    (folder / "config.json").write_text(json.dumps(document))
    return model
