"""Starting from weights of timm's SwinV2: what is copied, what is refused, what upcycling begins with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.swin_transformer_v2 import SwinTransformerV2

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.config import EncoderConfig, InitConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.moe import ExpertPlacement, LocalMoE, canonical_name
from gfm_pipeline.models.msgfm import MsGFM
from gfm_pipeline.models.transfer import start_encoder
from gfm_pipeline.sensors import BUILTIN_SENSORS
from tests.make_export import make_export

ENCODER = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}


def model(experts: int = 1, window: int = 4, image_px: int = 32, **encoder: object) -> MsGFM:
    config = ModelConfig(
        encoder=EncoderConfig(**{**ENCODER, "window": window, **encoder}),  # type: ignore[arg-type]
        moe=MoEConfig(num_experts=experts, blocks={2: (1,)}),
    )
    return MsGFM(config, {"rgb": BUILTIN_SENSORS["rgb"]}, image_px, seed=0)


@pytest.fixture(scope="module")
def swin() -> SwinTransformerV2:
    torch.manual_seed(1)
    built = SwinTransformerV2(img_size=32, window_size=4, num_classes=5, drop_path_rate=0.0, **ENCODER)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return built.eval()


@pytest.fixture
def weights(swin: SwinTransformerV2, tmp_path: Path) -> Path:
    path = tmp_path / "swin.safetensors"
    save_file({name: value.clone() for name, value in swin.state_dict().items()}, path)
    return path


def test_features_are_timms(swin: SwinTransformerV2, weights: Path) -> None:
    started = model().eval()
    account = start_encoder(started, InitConfig(path=str(weights)), seed=0)
    tokens = torch.randn(2, 8, 8, 16)
    assert torch.equal(started.encoder(tokens), swin.norm(swin.layers(tokens)))
    assert set(account.used) == {name for name, _ in started.encoder.named_parameters()}
    assert not account.into_experts
    assert {name.split(".")[0] for name in account.unused} == {"patch_embed", "head"}
    assert "not needed (head, patch_embed)" in str(account)


def test_upcycled_experts_begin_as_the_dense_encoder(swin: SwinTransformerV2, weights: Path) -> None:
    started = model(experts=4).eval()
    account = start_encoder(started, InitConfig(path=str(weights)), seed=0)
    assert len(account.into_experts) == 4
    tokens = torch.randn(2, 8, 8, 16)
    dense = swin.norm(swin.layers(tokens))
    # The norm after the MLP takes the gate's weight out again, but for its epsilon.
    torch.testing.assert_close(started.encoder(tokens), dense, atol=2e-3, rtol=2e-3)
    ((_, layer),) = started.moe_layers()
    assert isinstance(layer, LocalMoE)
    assert int((layer.routing.counts_E > 0).sum()) > 1  # type: ignore[union-attr]


def test_noise_sets_experts_apart_by_its_share(swin: SwinTransformerV2, weights: Path) -> None:
    started = model(experts=4)
    start_encoder(started, InitConfig(path=str(weights), expert_noise=0.1), seed=0)
    ((_, layer),) = started.moe_layers()
    dense = swin.layers[1].blocks[1].mlp.fc1.weight
    moved = [(expert.fc1.weight - dense).detach() for _, expert in layer.local_experts()]
    for index, change in enumerate(moved):
        assert (change.std() / dense.std()).item() == pytest.approx(0.1, rel=0.1)
        assert not any(torch.equal(change, other) for other in moved[:index])


def test_fresh_experts_keep_their_own_start(weights: Path) -> None:
    started, plain = model(experts=4), model(experts=4)
    account = start_encoder(started, InitConfig(path=str(weights), experts="fresh"), seed=0)
    assert not account.into_experts
    own = dict(plain.named_parameters())
    for name, parameter in started.named_parameters():
        kept = "mlp.experts" in name or "mlp.gate" in name or not name.startswith("encoder.")
        assert torch.equal(parameter, own[name]) == kept, name


def test_names_of_swins_own_code_and_of_simmim_are_known(swin: SwinTransformerV2, tmp_path: Path) -> None:
    state = {}
    for name, value in swin.state_dict().items():
        # Patches are merged at the end of a stage there, the head is one layer, buffers are stored.
        state["encoder." + name.replace("layers.1.downsample", "layers.0.downsample")] = value.clone()
    state["encoder.mask_token"] = torch.zeros(1, 1, 16)
    state["encoder.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    torch.save({"model": state, "epoch": 3}, tmp_path / "simmim.pth")
    started = model().eval()
    start_encoder(started, InitConfig(path=str(tmp_path / "simmim.pth")), seed=0)
    tokens = torch.randn(1, 8, 8, 16)
    assert torch.equal(started.encoder(tokens), swin.norm(swin.layers(tokens)))


def test_tables_of_other_windows_must_be_in_the_configuration(swin: SwinTransformerV2, tmp_path: Path) -> None:
    state = {name: value.clone() for name, value in swin.state_dict().items()}
    for stage, layer in enumerate(swin.layers):
        table = layer.blocks[0].attn.relative_coords_table
        state[f"layers.{stage}.blocks.0.attn.relative_coords_table"] = table.clone()
    save_file(state, tmp_path / "old.safetensors")
    init = InitConfig(path=str(tmp_path / "old.safetensors"))
    start_encoder(model(), init, seed=0)
    with pytest.raises(ConfigError, match=r"Set model\.encoder\.pretrained_window to \[4, 4\]"):
        start_encoder(model(window=8, image_px=64), init, seed=0)
    assert "are read as of" not in str(
        start_encoder(model(window=8, image_px=64, pretrained_window=(4, 4)), init, seed=0)
    )
    state = {name: value for name, value in state.items() if not name.endswith("relative_coords_table")}
    save_file(state, tmp_path / "timms.safetensors")
    started = start_encoder(model(window=8, image_px=64), InitConfig(path=str(tmp_path / "timms.safetensors")), seed=0)
    assert "it does not say its windows, position biases are read as of [8, 8]" in str(started)


TWO_EXPERTS = ModelConfig(
    encoder=EncoderConfig(embed_dim=16, depths=(2, 2), num_heads=(2, 4), window=4),
    moe=MoEConfig(num_experts=2, blocks={2: (1,)}),
)


@pytest.mark.parametrize("sharded", [False, True])
def test_an_exported_model_is_a_start_for_other_sensors(tmp_path: Path, sharded: bool) -> None:
    exported = make_export(tmp_path, [BUILTIN_SENSORS["dsm"]], TWO_EXPERTS)
    placement = ExpertPlacement(1, 0) if sharded else None
    started = MsGFM(TWO_EXPERTS, {"rgb": BUILTIN_SENSORS["rgb"]}, 32, 0, placement)
    account = start_encoder(started, InitConfig(path=str(tmp_path / "model.safetensors")), seed=0)
    assert "not needed (decoders, embeds, mask_token_D)" in str(account)
    assert "are read as of" not in str(account)  # config.json beside it says the windows
    theirs = dict(exported.encoder.named_parameters())
    layers: Any = {name.removeprefix("encoder."): layer for name, layer in started.moe_layers()}
    ours = {canonical_name(name, layers): value for name, value in started.encoder.named_parameters()}
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_windows_of_an_exported_model_must_be_in_the_configuration(tmp_path: Path) -> None:
    make_export(tmp_path, [BUILTIN_SENSORS["dsm"]], TWO_EXPERTS)
    init = InitConfig(path=str(tmp_path / "model.safetensors"))
    with pytest.raises(ConfigError, match=r"Set model\.encoder\.pretrained_window to \[4, 4\]"):
        start_encoder(model(2, window=8, image_px=64), init, seed=0)
    start_encoder(model(2, window=8, image_px=64, pretrained_window=(4, 4)), init, seed=0)
    nothing = (
        '{"format": "gfm-model", "image_px": 32, "model": {"encoder": {"patch_px": 0, "depths": [2, 2], "window": 4}}}'
    )
    for document in ("[]", "{", nothing, "[" * 100_000):
        (tmp_path / "config.json").write_text(document)
        assert "it does not say its windows" in str(start_encoder(model(2), init, seed=0))


def test_experts_of_an_exported_model_need_a_place(tmp_path: Path) -> None:
    make_export(tmp_path, [BUILTIN_SENSORS["dsm"]], TWO_EXPERTS)
    path = str(tmp_path / "model.safetensors")
    for experts in (1, 4):
        words = (
            rf"2 experts in layers\.1\.blocks\.1\.mlp, this encoder {experts}.*experts to 2 .*blocks to {{2: \[1\]}}"
        )
        with pytest.raises(ConfigError, match=words):
            start_encoder(model(experts), InitConfig(path=path), seed=0)
    fresh, plain = model(4), model(4)
    start_encoder(fresh, InitConfig(path=path, experts="fresh"), seed=0)
    assert torch.equal(fresh.encoder.block(2, 1).mlp.gate.weight, plain.encoder.block(2, 1).mlp.gate.weight)  # type: ignore[union-attr, arg-type]
    make_export(tmp_path, [BUILTIN_SENSORS["dsm"]], TWO_EXPERTS.model_copy(update={"moe": MoEConfig(num_experts=1)}))
    assert len(start_encoder(model(4), InitConfig(path=path), seed=0).into_experts) == 4


def test_a_part_of_a_checkpoint_is_named_as_one(swin: SwinTransformerV2, tmp_path: Path) -> None:
    state = {f"param/encoder.{name}": value.clone() for name, value in swin.state_dict().items()}
    save_file(state, tmp_path / "part-00000-of-00001.safetensors")
    with pytest.raises(ConfigError, match=r"part of a checkpoint.*gfm export"):
        start_encoder(model(), InitConfig(path=str(tmp_path / "part-00000-of-00001.safetensors")), seed=0)


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ({"embed_dim": 32}, r"layers\.0\..* has shape"),
        ({"depths": (2, 3)}, r"lacks layers\.1\.blocks\.2"),
        ({"depths": (2, 1)}, r"no place for \(first: layers\.1\.blocks\.1"),
    ],
)
def test_another_encoders_weights_are_refused(encoder: dict[str, object], words: str, weights: Path) -> None:
    config = ModelConfig(
        encoder=EncoderConfig(**{**ENCODER, "window": 4, **encoder}),  # type: ignore[arg-type]
        moe=MoEConfig(num_experts=1, blocks={}),
    )
    with pytest.raises(ConfigError, match=words):
        start_encoder(MsGFM(config, {"rgb": BUILTIN_SENSORS["rgb"]}, 32, seed=0), InitConfig(path=str(weights)), seed=0)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04cos\nsystem\n(S'true'\ntR."])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_files_that_are_no_weights_are_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as weights"):
        start_encoder(model(), InitConfig(path=str(tmp_path / name)), seed=0)
    with pytest.raises(ConfigError, match="nowhere"):
        start_encoder(model(), InitConfig(path=str(tmp_path / "nowhere.pth")), seed=0)
