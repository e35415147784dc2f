"""The fused window attention against timm's, forward and backward; windows of other runs."""

import pytest
import torch

from gfm_pipeline.models.attention import FusedWindowAttention
from gfm_pipeline.models.config import Attention, EncoderConfig
from gfm_pipeline.models.swin import SwinEncoder


def encoder(image_px: int, **settings: object) -> SwinEncoder:
    torch.manual_seed(0)
    config = EncoderConfig(embed_dim=16, depths=(2, 2), num_heads=(2, 4), **settings)  # type: ignore[arg-type]
    built = SwinEncoder(config, image_px)
    for parameter in built.parameters():  # the norms start at zero and would hide what the blocks do
        torch.nn.init.normal_(parameter, std=0.3)
    return built


def gradients(built: SwinEncoder, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    x = tokens.clone().requires_grad_()
    out = built(x)
    out.square().sum().backward()
    named = {name: parameter.grad for name, parameter in built.named_parameters()}
    assert x.grad is not None
    return {"out": out.detach(), "tokens": x.grad, **{name: grad for name, grad in named.items() if grad is not None}}


def agree(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], rtol: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=rtol * value.abs().max().item(), rtol=rtol, msg=name)


@pytest.mark.parametrize(("image_px", "window"), [(32, 4), (40, 5), (32, 8), (48, 5)])
def test_fused_attention_equals_timms(image_px: int, window: int) -> None:
    """Shifted and plain windows, windows as large as the stage, images padded to whole windows."""
    tokens = torch.randn(3, image_px // 4, image_px // 4, 16)
    results = []
    for kind in ("sdpa", "timm"):
        built = encoder(image_px, window=window, attention=kind)
        shifts = [any(block.shift_size) for layer in built.layers for block in layer.blocks]
        assert any(shifts) == (image_px // 4 > window)
        results.append(gradients(built, tokens))
    assert any("logit_scale" in name for name in results[0])
    assert any("cpb_mlp" in name for name in results[0])
    agree(*results, rtol=2e-5)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (48, 80), (16, 16)])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_fused_attention_follows_other_sizes_too(size: tuple[int, int], checkpointing: bool) -> None:
    """Forward and backward, of images that the encoder was not built for."""
    tokens = torch.randn(2, size[0] // 4, size[1] // 4, 16)
    settings = {"window": 5, "activation_checkpointing": checkpointing}
    fused, plain = (gradients(encoder(40, attention=kind, **settings), tokens) for kind in ("sdpa", "timm"))
    agree(fused, plain, rtol=2e-5)


def test_auto_is_timms_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the fused kernel ran")

    monkeypatch.setattr("gfm_pipeline.models.attention.F.scaled_dot_product_attention", refuse)
    tokens = torch.randn(1, 8, 8, 16)
    encoder(32, window=4)(tokens)
    with pytest.raises(AssertionError, match="fused"):
        encoder(32, window=4, attention="sdpa")(tokens)


@pytest.mark.parametrize("kind", ["sdpa", "timm"])
def test_activation_checkpointing_changes_no_bit(kind: Attention) -> None:
    tokens = torch.randn(2, 8, 8, 16)
    plain, saving = (
        gradients(encoder(32, window=4, attention=kind, activation_checkpointing=on), tokens) for on in (False, True)
    )
    assert plain.keys() == saving.keys()
    for name, value in plain.items():
        assert torch.equal(value, saving[name]), name


@pytest.mark.parametrize(
    ("image_px", "window", "windows"),
    [(128, 4, (4, 4, 4, 4)), (160, 10, (10, 10, 10, 5)), (256, 16, (16, 16, 16, 8)), (384, 24, (24, 24, 24, 12))],
)
def test_other_sizes_take_over_a_run_of_192_px(image_px: int, window: int, windows: tuple[int, ...]) -> None:
    settings = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}
    first = EncoderConfig(window=12, **settings)  # type: ignore[arg-type]
    assert first.stage_windows(192) == (12, 12, 12, 6)
    config = first.model_copy(update={"window": window, "pretrained_window": first.stage_windows(192)})
    assert config.stage_windows(image_px) == windows
    old, new = SwinEncoder(first, 192), SwinEncoder(config, image_px)
    new.load_state_dict(old.state_dict())
    assert new(torch.randn(1, image_px // 4, image_px // 4, 8)).shape == (1, image_px // 32, image_px // 32, 64)
    for stage, (before, after) in enumerate(zip(windows_of(old), windows_of(new), strict=True)):
        assert after.window_size == (windows[stage],) * 2
        shared = min(before.window_size[0], after.window_size[0])
        # The bias between two tokens is that of the old run wherever both windows have such a pair.
        torch.testing.assert_close(corner(before, shared), corner(after, shared))


def windows_of(built: SwinEncoder) -> list[FusedWindowAttention]:
    return [module for module in built.modules() if isinstance(module, FusedWindowAttention)]


def corner(attention: FusedWindowAttention, side: int) -> torch.Tensor:
    """Biases between the tokens of the window's upper left corner."""
    whole = attention.window_size[0]
    bias = attention.position_bias().view(-1, whole, whole, whole, whole)
    return bias[:, :side, :side, :side, :side]
