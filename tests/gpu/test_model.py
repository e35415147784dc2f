"""What only a GPU can tell: fused kernels, batched and grouped products, no wait for the device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gfm_pipeline.models.config import EncoderConfig, MoEConfig
from gfm_pipeline.models.experts import GroupedExperts, PaddedExperts
from gfm_pipeline.models.moe import LocalMoE, initialise_moe
from gfm_pipeline.models.routing import capacity, choose, combine, dispatch, place
from gfm_pipeline.models.swin import SwinEncoder
from tests.conftest import ROOT

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda")


@pytest.mark.parametrize(("image_px", "window"), [(96, 12), (192, 12), (160, 10), (128, 4)])
def test_fused_attention_equals_timms(image_px: int, window: int, device: torch.device) -> None:
    tokens = torch.randn(4, image_px // 4, image_px // 4, 64, device=device)
    results = []
    for kind in ("auto", "timm"):
        torch.manual_seed(0)
        config = EncoderConfig(embed_dim=64, depths=(2, 2), num_heads=(2, 4), window=window, attention=kind)  # type: ignore[arg-type]
        encoder = SwinEncoder(config, image_px).to(device)
        for parameter in encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        x = tokens.clone().requires_grad_()
        out = encoder(x)
        out.square().mean().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in encoder.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4 * float(other.abs().max()), rtol=1e-3)


def expert_layer(device: torch.device) -> LocalMoE:
    layer = LocalMoE(64, 256, MoEConfig())
    initialise_moe(layer, 0, "layer")
    return layer.to(device)


def through(layer: LocalMoE, tokens: torch.Tensor, padded: bool) -> torch.Tensor:
    choices = choose(tokens, layer.gate.weight, layer.config, training=True)
    slots = capacity(len(tokens), layer.config)
    routes = place(choices, slots, padded)
    rows = dispatch(tokens, routes)
    experts = list(layer.experts)
    if padded:
        rows = PaddedExperts()(rows.view(8, slots, -1), experts).flatten(0, 1)
    else:
        rows = GroupedExperts()(rows, experts, routes.count_E, slots)
    return combine(rows, routes)


def test_padded_and_grouped_products_agree(device: torch.device) -> None:
    layer, tokens = expert_layer(device), torch.randn(4096, 64, device=device)
    results = []
    for padded in (True, False):
        torch.manual_seed(1)
        x = tokens.clone().requires_grad_()
        layer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            out = through(layer, x, padded)
        out.float().square().mean().backward()
        results.append([out, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=2e-2 * float(other.abs().max()), rtol=2e-2)


@pytest.mark.parametrize("padded", [True, False])
def test_nothing_waits_for_the_device_and_gradients_repeat(padded: bool, device: torch.device) -> None:
    layer, tokens = expert_layer(device), torch.randn(4096, 64, device=device)
    gradients = []
    for turn in range(3):
        torch.manual_seed(1)
        x = tokens.clone().requires_grad_()
        torch.cuda.set_sync_debug_mode("error" if turn else "default")  # the first pass may set up libraries
        try:
            with torch.autocast("cuda", torch.bfloat16):
                out = through(layer, x, padded)
            out.float().square().mean().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        gradients.append(x.grad)
    assert torch.equal(gradients[1], gradients[2])


def test_the_bench_runs_in_bf16(tmp_path: Path, device: torch.device) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "DS_ACCELERATOR"}
    command = [
        sys.executable,
        "launch/bench.py",
        "step",
        "--config",
        "configs/pretrain/msgfm_base.yaml",
        "--steps",
        "2",
    ]
    settings = ["data.lanes=1", "data.streams.rgb.sub_batch=8", "data.streams.rgb.sensors=[rgb]"]
    command += [word for value in settings for word in ("--set", value)] + ["--json", str(tmp_path / "out.json")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    tree = json.loads((tmp_path / "out.json").read_text())
    assert tree["contenders"].keys() == {"timm", "dense", "moe"}
    assert 0 < tree["contenders"]["moe"]["share_of_peak"] < 1
