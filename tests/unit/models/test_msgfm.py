"""The model: published sizes, initialisation, and what a mask hides."""

import pytest
import torch

from gfm_pipeline.errors import ConfigError
from gfm_pipeline.models.config import EmbedConfig, EncoderConfig, ModelConfig, MoEConfig
from gfm_pipeline.models.decode import SensorDecoder
from gfm_pipeline.models.moe import LocalMoE
from gfm_pipeline.models.msgfm import MsGFM, SensorImages
from gfm_pipeline.sensors import BUILTIN_SENSORS

TINY = ModelConfig(
    encoder=EncoderConfig(embed_dim=16, depths=(1, 2), num_heads=(2, 4), window=4),
    moe=MoEConfig(num_experts=4, blocks={2: (0, 1)}),
)


def tiny(seed: int = 0, sensors: tuple[str, ...] = ("rgb", "s1", "s2", "dsm")) -> MsGFM:
    return MsGFM(TINY, {name: BUILTIN_SENSORS[name] for name in sensors}, 32, seed)


@pytest.mark.parametrize(("num_experts", "millions"), [(1, 86.9), (8, 219.2)])
def test_encoder_has_the_published_number_of_parameters(num_experts: int, millions: float) -> None:
    config = ModelConfig(moe=MoEConfig(num_experts=num_experts))
    with torch.device("cpu"):
        model = MsGFM(config, {"rgb": BUILTIN_SENSORS["rgb"]}, 192, seed=0)
    assert sum(p.numel() for p in model.encoder.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_without_experts_blocks_say_nothing() -> None:
    two_stages = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window": 4}
    config = ModelConfig.model_validate({"encoder": two_stages, "moe": {"num_experts": 1}})
    assert not list(MsGFM(config, {"rgb": BUILTIN_SENSORS["rgb"]}, 32, seed=0).moe_layers())
    with pytest.raises(ValueError, match=r"moe\.blocks names stage 3"):
        ModelConfig.model_validate({"encoder": two_stages, "moe": {"num_experts": 2}})


def test_no_two_experts_of_a_layer_start_equal() -> None:
    for _, layer in tiny().moe_layers():
        assert isinstance(layer, LocalMoE)
        weights = [expert.fc1.weight for expert in layer.experts]
        for i, one in enumerate(weights):
            assert one.std() > 0.01
            assert not any(torch.equal(one, other) for other in weights[i + 1 :])


def test_initial_weights_depend_on_the_seed_and_the_part_only() -> None:
    all_sensors, two = tiny(), tiny(sensors=("s1", "rgb"))
    full = dict(all_sensors.named_parameters())
    for name, parameter in two.named_parameters():
        assert torch.equal(parameter, full[name]), name
    assert not torch.equal(tiny(seed=1).mask_token_D, all_sensors.mask_token_D)


def test_mask_token_is_not_zero() -> None:
    assert tiny().mask_token_D.abs().min() > 0


@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_hidden_pixels_reach_no_token(kind: str) -> None:
    config = TINY.model_copy(update={"embed": EmbedConfig(kind=kind)})  # type: ignore[arg-type]
    model = MsGFM(config, {"rgb": BUILTIN_SENSORS["rgb"]}, 32, seed=0)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 1, 2] = True
    image = torch.randn(1, 3, 32, 32)
    other = image.clone()
    other[:, :, 8:16, 16:24] += 5  # exactly the hidden cell
    seen = [model.encode([SensorImages("rgb", pixels, mask)])[0] for pixels in (image, other)]
    assert torch.equal(*seen)
    unmasked = [model.encode([SensorImages("rgb", pixels)])[0] for pixels in (image, other)]
    assert not torch.equal(*unmasked)


def test_one_pass_over_many_sensors_equals_one_pass_each() -> None:
    model = tiny().eval()
    inputs = [
        SensorImages("s1", torch.randn(2, 2, 32, 32), torch.rand(2, 4, 4) < 0.6),
        SensorImages("s2", torch.randn(3, 13, 32, 32), torch.rand(3, 4, 4) < 0.6),
    ]
    together = model.encode(inputs)
    assert [tuple(f.shape) for f in together] == [(2, 4, 4, 32), (3, 4, 4, 32)]
    for item, features in zip(inputs, together, strict=True):
        torch.testing.assert_close(model.encode([item])[0], features)


def test_routes_are_told_by_sensor_over_all_passes() -> None:
    model = tiny()
    model.encode([SensorImages("s2", torch.randn(3, 13, 32, 32)), SensorImages("rgb", torch.randn(2, 3, 32, 32))])
    model.encode([SensorImages("rgb", torch.randn(1, 3, 32, 32))])
    tallies = model.take_tallies()
    assert tallies.keys() == {"stage2.block0", "stage2.block1"}
    for table in tallies.values():  # an image has 4 x 4 tokens in the second stage
        rows = dict(zip(model.embeds, table.tolist(), strict=True))
        assert {name: sum(row) for name, row in rows.items()} == {"rgb": 48, "s1": 0, "s2": 48, "dsm": 0}
    assert model.take_tallies() == {}
    images = torch.randn(3, 13, 32, 32)
    model.encode([SensorImages("s2", images)])
    alone = {label: table.clone() for label, table in model.take_tallies().items()}
    model.encode([SensorImages("s1", torch.randn(1, 2, 32, 32)), SensorImages("s2", images)])
    for label, table in model.take_tallies().items():
        assert torch.equal(table[2], alone[label][2])


def test_decoder_places_every_channel_where_a_pixel_shuffle_should() -> None:
    decoder = SensorDecoder(num_features=8, num_bands=2, stride_px=4)
    features = torch.randn(1, 3, 3, 8)
    image = decoder(features)
    flat = decoder.head(features.permute(0, 3, 1, 2))
    assert image.shape == (1, 2, 12, 12)
    for band, row, column in [(0, 0, 0), (1, 5, 10), (0, 11, 3)]:
        channel = band * 16 + (row % 4) * 4 + column % 4
        assert image[0, band, row, column] == flat[0, channel, row // 4, column // 4]


def test_image_size_must_fit_the_stride() -> None:
    with pytest.raises(ConfigError, match=r"data\.image_px 36 is not a multiple"):
        MsGFM(TINY, {"rgb": BUILTIN_SENSORS["rgb"]}, 36, seed=0)


def test_no_decay_covers_vectors_and_timms_own_list() -> None:
    model = tiny()
    names = model.no_decay_names()
    decayed = [name for name, p in model.named_parameters() if name not in names]
    assert "mask_token_D" in names
    assert any("logit_scale" in name for name in names)
    assert any("cpb_mlp" in name and name.endswith("weight") for name in names)
    assert decayed
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)


@pytest.mark.parametrize("name", ["values", "type", "training", "keys"])
def test_a_sensor_called_like_a_word_of_torchs_is_refused_by_name(name: str) -> None:
    spec = BUILTIN_SENSORS["s1"].model_copy(update={"name": name})
    with pytest.raises(ConfigError, match=f"sensor '{name}' cannot be trained on"):
        MsGFM(ModelConfig(), {name: spec}, 192, seed=0)
